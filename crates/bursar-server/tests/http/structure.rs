//! The layout of the sources: no import cycles, few files at the root of the server, unique type
//! names.

#![expect(clippy::unwrap_used, reason = "a test that cannot be arranged has failed")]
#![expect(clippy::panic, reason = "a source that cannot be read has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

const CRATES: [&str; 3] = ["bursar-core", "bursar-store", "bursar-server"];

/// The path of a module from the root of its crate; empty for the root.
type Module = Vec<String>;

/// The sources of one crate.
struct Sources {
    root: PathBuf,
    files: BTreeMap<Module, syn::File>,
}

impl Sources {
    fn of(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src");
        let mut files = BTreeMap::new();
        read_folder(&root, &mut Vec::new(), &mut files);
        Self { root, files }
    }

    /// The file that an absolute path leads to: its longest prefix that is a module.
    fn find(&self, path: &[String]) -> Module {
        let is_module = |end: &usize| path.get(..*end).is_some_and(|m| self.files.contains_key(m));
        let end = (0..=path.len()).rev().find(is_module).unwrap_or(0);
        path.get(..end).unwrap_or_default().to_vec()
    }

    /// The files that each file imports, except in tests.
    fn imports(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let mut imports = BTreeMap::new();
        for (module, file) in &self.files {
            let mut names = Names { sources: self, at: module.clone(), found: BTreeSet::default() };
            names.visit_file(file);
            names.found.remove(module);
            imports.insert(module.clone(), names.found);
        }
        imports
    }
}

fn read_folder(folder: &Path, module: &mut Module, files: &mut BTreeMap<Module, syn::File>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            module.push(name);
            read_folder(&path, module, files);
            module.pop();
        } else if path.extension().is_some_and(|ending| ending == "rs") && name != "main" {
            let source = fs::read_to_string(&path).unwrap();
            let file = syn::parse_file(&source);
            let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let mut of = module.clone();
            if name != "mod" && name != "lib" {
                of.push(name);
            }
            files.insert(of, file);
        }
    }
}

/// Collects the modules that a file names.
struct Names<'s> {
    sources: &'s Sources,
    at: Module,
    found: BTreeSet<Module>,
}

impl Names<'_> {
    fn add(&mut self, path: &[String]) {
        let Some((first, rest)) = path.split_first() else { return };
        let mut absolute = match first.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => self.at.clone(),
            name => {
                let mut child = self.at.clone();
                child.push(name.to_owned());
                if !self.sources.files.contains_key(&child) {
                    return;
                }
                child
            }
        };
        if first == "super" {
            absolute.pop();
        }
        let mut rest = rest;
        while let Some((_, after)) = rest.split_first().filter(|(next, _)| *next == "super") {
            absolute.pop();
            rest = after;
        }
        absolute.extend_from_slice(rest);
        let module = self.sources.find(&absolute);
        self.found.insert(module);
    }

    fn add_tree(&mut self, before: &mut Vec<String>, tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.add_tree(before, &path.tree);
                before.pop();
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add_tree(before, tree));
            }
            syn::UseTree::Name(name) => self.add_leaf(before, &name.ident),
            syn::UseTree::Rename(name) => self.add_leaf(before, &name.ident),
            syn::UseTree::Glob(_) => self.add(before),
        }
    }

    fn add_leaf(&mut self, before: &[String], name: &syn::Ident) {
        let mut path = before.to_vec();
        if name != "self" {
            path.push(name.to_string());
        }
        self.add(&path);
    }

    /// Adds the paths in the tokens of a macro or an attribute.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut colons) = (Vec::new(), 0);
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.add_complete(&mut path);
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(sign) if sign.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.add_complete(&mut path);
                    self.add_tokens(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => self.add_complete(&mut path),
            }
        }
        self.add_complete(&mut path);
    }

    fn add_complete(&mut self, path: &mut Vec<String>) {
        if path.len() > 1 {
            self.add(path);
        }
        path.clear();
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    let is_test = |attribute: &syn::Attribute| match &attribute.meta {
        syn::Meta::List(list) => {
            list.path.is_ident("cfg") && list.tokens.to_string().starts_with("test")
        }
        syn::Meta::Path(_) | syn::Meta::NameValue(_) => false,
    };
    attributes.iter().any(is_test)
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.add_tree(&mut Vec::new(), &item.tree);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if is_test(&item.attrs) || item.content.is_none() {
            return;
        }
        self.at.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.at.pop();
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !is_test(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if names.len() > 1 {
            self.add(&names);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.add_tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.add_tokens(list.tokens.clone());
        visit::visit_meta_list(self, list);
    }
}

/// The sets of files that import each other, directly or through others.
fn cycles(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<BTreeSet<Module>> {
    let reach = |from: &Module| {
        let mut seen = BTreeSet::new();
        let mut next = vec![from.clone()];
        while let Some(module) = next.pop() {
            for import in imports.get(&module).into_iter().flatten() {
                if seen.insert(import.clone()) {
                    next.push(import.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        imports.keys().map(|module| (module, reach(module))).collect();
    let mut found: Vec<BTreeSet<Module>> = Vec::new();
    for (module, reaches) in &reached {
        let is_back = |other: &&Module| reached.get(*other).is_some_and(|r| r.contains(*module));
        let cycle: BTreeSet<Module> = reaches.iter().filter(is_back).cloned().collect();
        if !cycle.is_empty() && !found.contains(&cycle) {
            found.push(cycle);
        }
    }
    found
}

/// The imports within a cycle, one a line.
fn name_cycle(imports: &BTreeMap<Module, BTreeSet<Module>>, cycle: &BTreeSet<Module>) -> String {
    let shown = |module: &Module| match module.is_empty() {
        true => "lib".to_owned(),
        false => module.join("/"),
    };
    let mut lines = Vec::new();
    for from in cycle {
        for to in imports.get(from).into_iter().flatten().filter(|to| cycle.contains(*to)) {
            lines.push(format!("{} -> {}", shown(from), shown(to)));
        }
    }
    lines.join("\n")
}

#[test]
fn no_files_import_each_other_in_a_cycle() {
    for name in CRATES {
        let imports = Sources::of(name).imports();
        let cycles = cycles(&imports);
        let named: Vec<String> = cycles.iter().map(|cycle| name_cycle(&imports, cycle)).collect();
        assert!(named.is_empty(), "{name} has import cycles:\n{}", named.join("\n\n"));
    }
}

#[test]
fn a_cycle_is_found_and_named() {
    let module = |name: &str| vec![name.to_owned()];
    let imports = BTreeMap::from([
        (module("a"), BTreeSet::from([module("b")])),
        (module("b"), BTreeSet::from([module("c"), module("d")])),
        (module("c"), BTreeSet::from([module("a")])),
        (module("d"), BTreeSet::new()),
    ]);
    let found = cycles(&imports);
    assert_eq!(found, [BTreeSet::from([module("a"), module("b"), module("c")])]);
    let named = name_cycle(&imports, found.first().unwrap());
    assert_eq!(named, "a -> b\nb -> c\nc -> a");
}

#[test]
fn the_root_of_the_server_has_few_entries() {
    let root = Sources::of("bursar-server").root;
    let entries: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(entries.len() <= 20, "{entries:?}");
}

/// Collects the declarations of a file.
#[derive(Default)]
struct Declared {
    types: Vec<String>,
    functions: Vec<String>,
}

impl<'ast> Visit<'ast> for Declared {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        if is_shared(&item.vis) {
            self.types.push(item.ident.to_string());
        }
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        if is_shared(&item.vis) {
            self.types.push(item.ident.to_string());
        }
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.functions.push(signature.ident.to_string());
    }
}

/// Whether an item is `pub` or `pub(crate)`.
fn is_shared(visibility: &syn::Visibility) -> bool {
    match visibility {
        syn::Visibility::Public(_) => true,
        syn::Visibility::Restricted(within) => within.path.is_ident("crate"),
        syn::Visibility::Inherited => false,
    }
}

#[test]
fn shared_types_of_a_crate_have_different_names() {
    for name in CRATES {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (module, file) in &Sources::of(name).files {
            let mut declared = Declared::default();
            declared.visit_file(file);
            for declared in declared.types {
                places.entry(declared).or_default().push(module.join("/"));
            }
        }
        places.retain(|_, modules| modules.len() > 1);
        assert!(places.is_empty(), "{name}: {places:#?}");
    }
}

#[test]
fn no_function_is_named_pass() {
    for name in CRATES {
        for (module, file) in &Sources::of(name).files {
            let mut declared = Declared::default();
            declared.visit_file(file);
            let is_allowed = |function: &String| function != "pass";
            assert!(declared.functions.iter().all(is_allowed), "{name}: {}", module.join("/"));
        }
    }
}
