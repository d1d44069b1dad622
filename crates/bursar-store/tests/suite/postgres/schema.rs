//! The schema that the migrations create, as far as the rule of tenants needs it.
//!
//! The rule: keys, unique indexes and foreign keys of a tenant's table start with `tenant_id`, so
//! that the tables can be distributed by it, and row level security is on.

use std::collections::BTreeMap;

use sqlparser::ast::{
    AlterTable, AlterTableOperation, ColumnDef, ColumnOption, CreateIndex, CreatePolicy,
    CreatePolicyCommand, CreatePolicyType, CreateTable, Expr, ForeignKeyConstraint, Ident,
    IndexColumn, ObjectName, Statement, TableConstraint,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::{Parser, ParserError};

/// The tables that belong to no tenant.
pub(crate) const OF_NO_TENANT: [&str; 6] =
    ["server", "tenants", "leases", "clock", "id_numbers", "write_probe"];

/// The tables that stay on the coordinator of Citus.
///
/// Some of their statements read the clock while they change a row, which Citus refuses on reference
/// tables, and the schema changes together with them in one transaction.
pub(crate) const ON_THE_COORDINATOR: [&str; 5] =
    ["server", "leases", "clock", "id_numbers", "write_probe"];

/// The column with which everything of a tenant starts.
pub(crate) const TENANT: &str = "tenant_id";
/// The setting that names the tenant of a transaction.
const SETTING: &str = "'bursar.tenant_id'";

/// The parts of a table that the rule is about.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) columns: Vec<String>,
    /// The types of its columns.
    pub(crate) types: BTreeMap<String, String>,
    has_primary_key: bool,
    /// The kinds and the columns of keys, unique constraints and foreign keys.
    keys: Vec<(String, Vec<String>)>,
    is_secured: bool,
    is_forced: bool,
    policies: Vec<Policy>,
}

#[derive(Debug)]
struct Policy {
    name: String,
    is_for_all: bool,
    /// The conditions on rows that are read or written.
    expressions: Vec<String>,
}

/// All tables by name, and the faults of the statements that create them.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    pub(crate) tables: BTreeMap<String, Table>,
    faults: Vec<String>,
}

/// Parses statements of PostgreSQL.
///
/// # Errors
/// The error of the parser.
pub(crate) fn parse(sql: &str) -> Result<Vec<Statement>, ParserError> {
    // The parser does not know the weaker locks, which make no difference here.
    let known =
        sql.replace("for no key update", "for update").replace("for key share", "for share");
    // The parser does not know this either.
    let is_known = |line: &&str| !line.contains(" set statistics ");
    let known: Vec<&str> = known.lines().filter(is_known).collect();
    Parser::parse_sql(&PostgreSqlDialect {}, &known.join("\n"))
}

/// The last part of a name, in lower case: there is only one schema.
pub(crate) fn last_part(name: &ObjectName) -> String {
    let last = name.0.last().and_then(|part| part.as_ident());
    last.map(|ident| ident.value.to_lowercase()).unwrap_or_default()
}

impl Schema {
    /// Reads migrations in their order.
    ///
    /// # Errors
    /// The error of the parser.
    pub(crate) fn read<'a>(
        migrations: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ParserError> {
        let mut schema = Self::default();
        for migration in migrations {
            for statement in parse(migration)? {
                schema.apply(&statement);
            }
        }
        Ok(schema)
    }

    /// Whether a table's rows belong to tenants.
    pub(crate) fn is_of_tenants(&self, table: &str) -> bool {
        self.tables.contains_key(table) && !OF_NO_TENANT.contains(&table)
    }

    /// All breaks of the rule, as sentences that name the table.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = self.faults.clone();
        for (name, table) in &self.tables {
            if self.is_of_tenants(name) {
                faults.extend(table.faults().into_iter().map(|fault| format!("{name}: {fault}")));
            }
        }
        faults
    }

    fn apply(&mut self, statement: &Statement) {
        match statement {
            Statement::CreateTable(table) => self.create_table(table),
            Statement::CreateIndex(index) => self.create_index(index),
            Statement::AlterTable(alteration) => self.alter_table(alteration),
            Statement::CreatePolicy(policy) => self.create_policy(policy),
            Statement::Insert(insert) => {
                let of_tenants = self.is_of_tenants(&insert.table.to_string());
                if of_tenants {
                    self.faults.push(format!("cannot be judged: {insert}"));
                }
            }
            // These cannot break the rule.
            Statement::Comment { .. } | Statement::Grant(_) | Statement::Revoke(_) => {}
            Statement::CreateSequence { .. } | Statement::Set(_) => {}
            // Other statements must be reviewed before they are allowed here.
            other => self.faults.push(format!("cannot be judged: {other}")),
        }
    }

    fn create_table(&mut self, made: &CreateTable) {
        let name = last_part(&made.name);
        let of_another = made.partition_of.is_some() || made.inherits.is_some();
        if made.query.is_some() || made.like.is_some() || of_another {
            self.faults.push(format!("{name}: is made from another table"));
        }
        let table = self.tables.entry(name).or_default();
        for column in &made.columns {
            let name = column.name.value.to_lowercase();
            for option in &column.options {
                table.add_column_option(&name, &option.option);
            }
            table.types.insert(name.clone(), type_of(column));
            table.columns.push(name);
        }
        for constraint in &made.constraints {
            table.add_constraint(constraint);
        }
    }

    fn create_index(&mut self, made: &CreateIndex) {
        if made.unique {
            let table = self.known(&made.table_name);
            table.keys.push(("unique index".to_owned(), index_columns(&made.columns)));
        }
    }

    fn alter_table(&mut self, alteration: &AlterTable) {
        for operation in &alteration.operations {
            let table = self.known(&alteration.name);
            match operation {
                AlterTableOperation::AddConstraint { constraint, .. } => {
                    table.add_constraint(constraint);
                }
                AlterTableOperation::AddColumn { column_def, .. } => {
                    let name = column_def.name.value.to_lowercase();
                    for option in &column_def.options {
                        table.add_column_option(&name, &option.option);
                    }
                    table.types.insert(name.clone(), type_of(column_def));
                    table.columns.push(name);
                }
                AlterTableOperation::EnableRowLevelSecurity => table.is_secured = true,
                AlterTableOperation::ForceRowLevelSecurity => table.is_forced = true,
                other => {
                    let table = last_part(&alteration.name);
                    self.faults.push(format!("{table}: cannot be judged: {other}"));
                }
            }
        }
    }

    fn create_policy(&mut self, made: &CreatePolicy) {
        let is_permissive = !matches!(made.policy_type, Some(CreatePolicyType::Restrictive));
        let is_for_all = matches!(made.command, None | Some(CreatePolicyCommand::All));
        let expressions = made.using.iter().chain(&made.with_check);
        let policy = Policy {
            name: made.name.value.clone(),
            is_for_all: is_permissive && is_for_all && made.using.is_some() && made.to.is_none(),
            expressions: expressions.map(tenant_compared).collect(),
        };
        self.known(&made.table_name).policies.push(policy);
    }

    /// A table by its name; an unknown one becomes a table without columns, which is a fault.
    fn known(&mut self, name: &ObjectName) -> &mut Table {
        self.tables.entry(last_part(name)).or_default()
    }
}

impl Table {
    fn add_column_option(&mut self, column: &str, option: &ColumnOption) {
        let columns = vec![column.to_owned()];
        match option {
            ColumnOption::PrimaryKey(_) => {
                self.has_primary_key = true;
                self.keys.push(("primary key".to_owned(), columns));
            }
            ColumnOption::Unique(_) => self.keys.push(("unique constraint".to_owned(), columns)),
            ColumnOption::ForeignKey(key) => self.add_foreign_key(key, columns),
            // The others do not relate rows.
            _ => {}
        }
    }

    fn add_constraint(&mut self, constraint: &TableConstraint) {
        match constraint {
            TableConstraint::PrimaryKey(key) => {
                self.has_primary_key = true;
                self.keys.push(("primary key".to_owned(), index_columns(&key.columns)));
            }
            TableConstraint::Unique(key) => {
                self.keys.push(("unique constraint".to_owned(), index_columns(&key.columns)));
            }
            TableConstraint::ForeignKey(key) => self.add_foreign_key(key, names(&key.columns)),
            TableConstraint::Check(_) => {}
            other => self.keys.push((format!("what cannot be judged ({other})"), Vec::new())),
        }
    }

    fn add_foreign_key(&mut self, key: &ForeignKeyConstraint, columns: Vec<String>) {
        let to = last_part(&key.foreign_table);
        if !key.referred_columns.is_empty() {
            let referred = names(&key.referred_columns);
            self.keys.push((format!("what a foreign key refers to in {to}"), referred));
        }
        self.keys.push((format!("foreign key to {to}"), columns));
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if !self.columns.iter().any(|column| column == TENANT) {
            faults.push(format!("has no column {TENANT}"));
        }
        if !self.has_primary_key {
            faults.push("has no primary key".to_owned());
        }
        for (key, columns) in &self.keys {
            if columns.first().is_none_or(|first| first != TENANT) {
                faults.push(format!("{key} does not start with {TENANT}: {columns:?}"));
            }
        }
        if !self.is_secured {
            faults.push("row level security is not enabled".to_owned());
        }
        if !self.is_forced {
            faults.push("row level security is not forced on its owner".to_owned());
        }
        if self.policies.is_empty() {
            faults.push("has no policy".to_owned());
        }
        for Policy { name, is_for_all, expressions } in &self.policies {
            if !is_for_all {
                faults.push(format!("policy {name} is not for all commands of all roles"));
            }
            for expression in expressions.iter().filter(|expression| !expression.is_empty()) {
                faults.push(format!("policy {name} does not compare {TENANT}: {expression}"));
            }
        }
        faults
    }
}

/// Empty if an expression compares `tenant_id` with the transaction's setting; else its text.
fn tenant_compared(expression: &Expr) -> String {
    let text = expression.to_string();
    let compared = text.strip_prefix(&format!("{TENANT} = ")).unwrap_or_default();
    let is_one_comparison = ![" OR ", " AND ", " IS "].iter().any(|word| compared.contains(word));
    if is_one_comparison && compared.contains(SETTING) { String::new() } else { text }
}

/// The columns of an index, or the texts of its expressions.
fn index_columns(columns: &[IndexColumn]) -> Vec<String> {
    columns.iter().map(|column| column.column.expr.to_string().to_lowercase()).collect()
}

fn type_of(column: &ColumnDef) -> String {
    column.data_type.to_string().to_lowercase()
}

fn names(columns: &[Ident]) -> Vec<String> {
    columns.iter().map(|column| column.value.to_lowercase()).collect()
}
