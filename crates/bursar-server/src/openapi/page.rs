//! Renders the OpenAPI document as plain HTML without scripts.
//!
//! The page needs no other host and works under a policy that forbids everything.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::document::document;

/// How deep an example follows nested types.
const EXAMPLE_DEPTH_MAX: u32 = 8;

pub(super) fn html() -> String {
    let mut page = Page(String::with_capacity(256 * 1024));
    page.head();
    page.navigation();
    page.raw("<main>\n");
    page.introduction();
    for tag in list(document(), "/tags") {
        page.tag(tag);
    }
    page.schemas();
    page.raw("</main>\n</div>\n</body>\n</html>\n");
    page.0
}

/// A page that is being written.
struct Page(String);

impl Page {
    fn raw(&mut self, html: &str) {
        self.0.push_str(html);
    }

    /// Appends text, escaped.
    fn text(&mut self, text: &str) {
        self.0.extend(text.chars().map(Escaped::from).flat_map(Escaped::chars));
    }

    /// Appends text in an element.
    fn element(&mut self, name: &str, text: &str) {
        let _ = write!(self.0, "<{name}>");
        self.text(text);
        let _ = write!(self.0, "</{name}>");
    }

    fn link(&mut self, target: &str, text: &str) {
        self.raw("<a href=\"");
        self.text(target);
        self.raw("\">");
        self.text(text);
        self.raw("</a>");
    }

    /// Appends the paragraphs of a description: blank lines and `code` are the only Markdown.
    fn prose(&mut self, markdown: &str) {
        for paragraph in markdown.split("\n\n") {
            self.raw("<p>");
            self.inline(paragraph);
            self.raw("</p>\n");
        }
    }

    fn inline(&mut self, markdown: &str) {
        for (at, part) in markdown.split('`').enumerate() {
            if at % 2 == 1 {
                self.element("code", part);
            } else {
                self.text(part);
            }
        }
    }

    fn head(&mut self) {
        self.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
        self.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
        self.raw("<meta name=\"color-scheme\" content=\"light dark\">\n");
        self.raw("<title>Bursar API</title>\n");
        self.raw("<link rel=\"stylesheet\" href=\"/docs/style.css\">\n</head>\n<body>\n");
        self.raw("<header><strong>Bursar</strong> <span>API ");
        self.text(text(document(), "/info/version"));
        self.raw("</span> <a href=\"/openapi.json\">openapi.json</a></header>\n");
        self.raw("<div class=\"columns\">\n");
    }

    fn navigation(&mut self) {
        self.raw("<nav aria-label=\"Routes\">\n");
        for tag in list(document(), "/tags") {
            self.element("h2", text(tag, "/name"));
            self.raw("\n<ul>\n");
            for operation in operations(tag) {
                self.raw("<li><a href=\"#");
                self.text(operation.id);
                self.raw("\">");
                self.method(operation.method);
                self.raw("<span class=\"path\">");
                self.text(operation.path.strip_prefix("/api/v1").unwrap_or(operation.path));
                self.raw("</span></a></li>\n");
            }
            self.raw("</ul>\n");
        }
        self.raw("<ul>\n<li><a href=\"#schemas\">All types</a></li>\n</ul>\n</nav>\n");
    }

    fn method(&mut self, method: &str) {
        let _ = write!(self.0, "<span class=\"method {method}\">{}</span>", method.to_uppercase());
    }

    fn introduction(&mut self) {
        self.raw("<section>\n<h1>The API</h1>\n");
        self.prose(text(document(), "/info/description"));
        self.raw("<h2>Who calls</h2>\n<table>\n");
        self.raw(
            "<thead><tr><th>credential</th><th>header</th><th>meaning</th></tr></thead>\n<tbody>\n",
        );
        for (name, scheme) in fields(document(), "/components/securitySchemes") {
            let header = match text(scheme, "/name") {
                "" => "Authorization: Bearer",
                name => name,
            };
            self.raw("<tr><td>");
            self.element("code", name);
            self.raw("</td><td>");
            self.element("code", header);
            self.raw("</td><td>");
            self.inline(text(scheme, "/description"));
            self.raw("</td></tr>\n");
        }
        self.raw("</tbody>\n</table>\n<h2>Responses</h2>\n");
        let example = json!({ "success": true, "data": {}, "meta": example("Meta") });
        self.json(&example);
        self.prose("On an error, the response has a code and a message instead:");
        self.json(&example_of(&resolve("Failure"), 0));
        self.raw("</section>\n");
    }

    fn tag(&mut self, tag: &Value) {
        self.raw("<section>\n<h2 class=\"tag\">");
        self.text(text(tag, "/name"));
        self.raw("</h2>\n");
        self.prose(text(tag, "/description"));
        for operation in operations(tag) {
            self.operation(&operation);
        }
        self.raw("</section>\n");
    }

    fn operation(&mut self, operation: &Operation) {
        self.raw("<article id=\"");
        self.text(operation.id);
        self.raw("\">\n<h3>");
        self.method(operation.method);
        self.element("code", operation.path);
        self.raw("</h3>\n<p class=\"summary\">");
        self.text(text(operation.value, "/summary"));
        self.raw(".</p>\n");
        self.prose(text(operation.value, "/description"));
        self.parameters(operation.value);
        if let Some(body) = operation.value.pointer("/requestBody/content/application~1json") {
            self.raw("<h4>Body</h4>\n");
            self.kind_line(body.get("schema").unwrap_or(&Value::Null));
            self.json(body.get("example").unwrap_or(&Value::Null));
        }
        self.responses(operation.value);
        self.raw("</article>\n");
    }

    fn parameters(&mut self, operation: &Value) {
        let own: Vec<&Value> = list(operation, "/parameters").collect();
        let mut own = own.iter().filter(|parameter| parameter.get("$ref").is_none()).peekable();
        if own.peek().is_none() {
            return;
        }
        self.raw("<h4>Parameters</h4>\n<table>\n<tbody>\n");
        for parameter in own {
            let schema = parameter.get("schema").unwrap_or(&Value::Null);
            self.raw("<tr><td>");
            self.element("code", text(parameter, "/name"));
            self.raw("</td><td>");
            self.kind(schema);
            self.raw("</td><td>");
            self.inline(text(parameter, "/description"));
            self.raw("</td></tr>\n");
        }
        self.raw("</tbody>\n</table>\n");
    }

    fn responses(&mut self, operation: &Value) {
        self.raw("<h4>Responses</h4>\n");
        let all =
            || fields(operation, "/responses").map(|(status, answer)| (status, follow(answer)));
        let is_failure = |status: &str| status.starts_with('4') || status.starts_with('5');
        let mut shown = None;
        for (status, answer) in all().filter(|(status, _)| !is_failure(status)) {
            self.raw("<p><span class=\"status\">");
            self.text(status);
            self.raw("</span> ");
            self.inline(text(answer, "/description"));
            let data = answer.pointer("/content/application~1json/schema/properties/data");
            if let Some(data) = data {
                self.raw(" <span class=\"kind\"><code>data</code>: ");
                self.kind(data);
                self.raw("</span></p>\n");
                if shown.replace(data) != Some(data) {
                    self.json(&example_of(data, 0));
                }
            } else {
                self.raw("</p>\n");
            }
        }
        if all().any(|(status, _)| is_failure(status)) {
            self.raw("<details>\n<summary>Errors</summary>\n<table>\n<tbody>\n");
            for (status, answer) in all().filter(|(status, _)| is_failure(status)) {
                self.raw("<tr><td><span class=\"status failed\">");
                self.text(status);
                self.raw("</span></td><td>");
                self.prose(text(answer, "/description"));
                self.raw("</td></tr>\n");
            }
            self.raw("</tbody>\n</table>\n</details>\n");
        }
    }

    fn schemas(&mut self) {
        self.raw("<section id=\"schemas\">\n<h2 class=\"tag\">types</h2>\n");
        for (name, schema) in fields(document(), "/components/schemas") {
            self.raw("<article id=\"type-");
            self.text(name);
            self.raw("\">\n");
            self.element("h3", name);
            self.raw("\n");
            self.prose(text(schema, "/description"));
            let mut own = fields(schema, "/properties").peekable();
            if own.peek().is_none() {
                self.kind_line(schema);
            } else {
                self.raw("<table>\n<tbody>\n");
                for (field, kind) in own {
                    let required = list(schema, "/required").any(|required| required == field);
                    self.raw("<tr><td>");
                    self.element("code", field);
                    self.raw(if required { "" } else { " <small>optional</small>" });
                    self.raw("</td><td>");
                    self.kind(kind);
                    self.raw("</td><td>");
                    let described = ["/description", "/oneOf/0/description"];
                    let described = described.iter().map(|pointer| text(kind, pointer));
                    self.inline(described.max_by_key(|text| text.len()).unwrap_or_default());
                    self.raw("</td></tr>\n");
                }
                self.raw("</tbody>\n</table>\n");
            }
            self.raw("</article>\n");
        }
        self.raw("</section>\n");
    }

    fn kind_line(&mut self, schema: &Value) {
        self.raw("<p class=\"kind\">");
        self.kind(schema);
        self.raw("</p>\n");
    }

    /// Appends a short form of what a schema allows.
    fn kind(&mut self, schema: &Value) {
        if let Some(name) = reference(schema) {
            self.link(&format!("#type-{name}"), name);
            return;
        }
        for choice in ["/oneOf", "/anyOf"] {
            for (at, one) in list(schema, choice).enumerate() {
                self.raw(if at == 0 { "" } else { " or " });
                self.kind(one);
            }
        }
        if let Some(items) = schema.get("items") {
            self.raw("list of ");
            self.kind(items);
            self.bounds(schema);
            return;
        }
        let words: Vec<&Value> = list(schema, "/enum").collect();
        for (at, word) in words.iter().enumerate() {
            self.raw(if at == 0 { "" } else { " | " });
            self.element("code", &word.as_str().map_or(word.to_string(), str::to_owned));
        }
        if !words.is_empty() {
            return;
        }
        match schema.get("type") {
            Some(Value::String(one)) => self.text(one),
            Some(Value::Array(several)) => {
                let several: Vec<&str> = several.iter().filter_map(Value::as_str).collect();
                self.text(&several.join(" or "));
            }
            Some(_) | None => {}
        }
        if let Some(constant) = schema.get("const") {
            self.element("code", &constant.to_string());
        }
        self.bounds(schema);
    }

    fn bounds(&mut self, schema: &Value) {
        for (field, word) in [
            ("format", ""),
            ("minimum", "from "),
            ("maximum", "to "),
            ("minLength", "characters from "),
            ("maxLength", "to "),
            ("minItems", "from "),
            ("maxItems", "to "),
            ("default", "default "),
        ] {
            let Some(value) = schema.get(field) else { continue };
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            self.text(&format!(", {word}{value}"));
        }
    }

    fn json(&mut self, value: &Value) {
        self.raw("<pre tabindex=\"0\"><code>");
        self.text(&format!("{value:#}"));
        self.raw("</code></pre>\n");
    }
}

/// A character escaped for HTML.
enum Escaped {
    Itself(char),
    Written(&'static str),
}

impl From<char> for Escaped {
    fn from(character: char) -> Self {
        match character {
            '&' => Self::Written("&amp;"),
            '<' => Self::Written("&lt;"),
            '>' => Self::Written("&gt;"),
            '"' => Self::Written("&quot;"),
            other => Self::Itself(other),
        }
    }
}

impl Escaped {
    fn chars(self) -> impl Iterator<Item = char> {
        let (itself, written) = match self {
            Self::Itself(character) => (Some(character), ""),
            Self::Written(written) => (None, written),
        };
        itself.into_iter().chain(written.chars())
    }
}

/// An operation of the document.
struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    value: &'static Value,
}

/// The operations of a tag, reads first.
fn operations(tag: &Value) -> impl Iterator<Item = Operation> {
    const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
    let tag = text(tag, "/name").to_owned();
    fields(document(), "/paths").flat_map(move |(path, item)| {
        let tag = tag.clone();
        METHODS.into_iter().filter_map(move |method| {
            let value = item.get(method)?;
            let id = text(value, "/operationId");
            (text(value, "/tags/0") == tag).then_some(Operation { method, path, id, value })
        })
    })
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn fields<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let object = value.pointer(pointer).and_then(Value::as_object);
    object.into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

/// The name in a reference.
fn reference(value: &Value) -> Option<&str> {
    value.get("$ref")?.as_str()?.rsplit('/').next()
}

/// The target of a reference, or the value itself.
fn follow(value: &Value) -> &Value {
    let pointer = text(value, "/$ref").trim_start_matches('#');
    if pointer.is_empty() { value } else { document().pointer(pointer).unwrap_or(value) }
}

fn resolve(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn example(name: &str) -> Value {
    example_of(&resolve(name), 0)
}

/// An example that fits a schema.
fn example_of(schema: &Value, depth: u32) -> Value {
    let schema = follow(schema);
    let first = ["/example", "/examples/0", "/const", "/default", "/enum/0"];
    if let Some(said) = first.iter().find_map(|pointer| schema.pointer(pointer)) {
        return said.clone();
    }
    if depth > EXAMPLE_DEPTH_MAX {
        return Value::Null;
    }
    for pointer in ["/oneOf/0", "/anyOf/0", "/allOf/0"] {
        if let Some(choice) = schema.pointer(pointer) {
            return example_of(choice, depth + 1);
        }
    }
    let kind = schema.get("type");
    let kind = kind.and_then(|kind| kind.as_str().or_else(|| kind.get(0)?.as_str()));
    match kind {
        Some("object") => {
            let own = fields(schema, "/properties");
            let shown = own.map(|(name, kind)| (name.to_owned(), example_of(kind, depth + 1)));
            Value::Object(shown.collect::<Map<String, Value>>())
        }
        Some("array") => {
            let item = schema.get("items").map(|item| example_of(item, depth + 1));
            Value::Array(item.into_iter().collect())
        }
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or_else(|| json!(0)),
        Some("boolean") => json!(false),
        Some("string") => json!("..."),
        Some(_) | None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_html_would_take_for_its_own_is_written_out() {
        let mut page = Page(String::new());
        page.prose("a `<b>` & \"c\"\n\nd");
        assert_eq!(page.0, "<p>a <code>&lt;b&gt;</code> &amp; &quot;c&quot;</p>\n<p>d</p>\n");
    }

    #[test]
    fn every_link_of_the_page_leads_somewhere() {
        let page = html();
        for target in page.split("href=\"#").skip(1) {
            let id = target.split('"').next().unwrap_or_default();
            assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
        }
    }
}
