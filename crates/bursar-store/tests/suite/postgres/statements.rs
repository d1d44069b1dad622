//! Checks that a statement is about one tenant, and that Citus can send it to the node of that
//! tenant unchanged.
//!
//! - Each table of tenants is bound in its own query: a condition that every row meets makes its
//!   `tenant_id` equal to a parameter, directly or through other tables of tenants of the same query.
//!   A statement has one such parameter.
//! - Rows are inserted by `values`; an array is `unnest`ed there unchanged, and cast before that for a
//!   narrow column.
//! - A statement that writes to a distributed table calls immutable functions only.
//! - No query joins tables of tenants with tables of the coordinator.
//! - Settings and queries are sent in separate texts.
//!
//! A statement that the checks do not understand is a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use sqlparser::ast::{
    Assignment, AssignmentTarget, ConflictTarget, Delete, Expr, FromTable, Function, FunctionArg,
    FunctionArgExpr, FunctionArguments, Insert, Join, JoinConstraint, JoinOperator, ObjectName,
    OnConflict, OnConflictAction, OnInsert, Query, Select, SetExpr, Statement, TableAlias,
    TableFactor, TableObject, TableWithJoins, TruncateTableTarget, Update, UpdateTableFromKind,
    Visit, Visitor, visit_expressions, visit_relations,
};

use crate::postgres::schema::{ON_THE_COORDINATOR, Schema, TENANT, last_part, parse};
use crate::postgres::scope::{Relation, Scope, parameter};

/// The function that returns a row for each value of an array.
const ROWS: &str = "unnest";
/// Functions whose result depends only on their arguments.
const IMMUTABLE: [&str; 5] = [ROWS, "coalesce", "greatest", "least", "nullif"];
/// Types to which a cast does not depend on settings.
const PLAIN_TYPES: [&str; 5] = ["bigint", "bytea", "integer", "smallint", "uuid"];

/// All faults in a text of one or more statements.
pub(crate) fn faults(schema: &Schema, sql: &str) -> Vec<String> {
    let statements = match parse(sql) {
        Ok(statements) => statements,
        Err(error) => return vec![format!("cannot be read: {error}")],
    };
    let mut faults = Vec::new();
    let sets = |statement: &Statement| matches!(statement, Statement::Set(_));
    let begins = |statement: &Statement| matches!(statement, Statement::StartTransaction { .. });
    if statements.iter().any(sets) && !statements.iter().all(|one| sets(one) || begins(one)) {
        faults.push("a setting travels with a query".to_owned());
    }
    for statement in &statements {
        let mut judge = Judge {
            schema,
            ctes: Vec::new(),
            judged: 0,
            parameters: BTreeSet::new(),
            functions: BTreeSet::new(),
            is_written_on_nodes: false,
            faults: Vec::new(),
        };
        judge.statement(statement);
        judge.conclude(statement);
        faults.append(&mut judge.faults);
    }
    faults
}

/// The parameters that a statement unnests into columns, and the types of the columns.
pub(crate) fn arrays(schema: &Schema, sql: &str) -> BTreeMap<usize, String> {
    let mut arrays = BTreeMap::new();
    for statement in parse(sql).unwrap() {
        let Statement::Insert(insert) = statement else { continue };
        let TableObject::TableName(table) = &insert.table else { continue };
        let types = schema.tables.get(&last_part(table)).map(|table| &table.types);
        let source = insert.source.as_ref().map(|query| &*query.body);
        let Some(SetExpr::Values(values)) = source else { continue };
        let columns = insert.columns.iter().map(last_part);
        for (column, value) in columns.zip(values.rows.iter().flat_map(|row| row.iter())) {
            let Expr::Function(function) = value else { continue };
            let number = argument(function).and_then(parameter);
            let number = number.and_then(|name| name.trim_start_matches('$').parse().ok());
            let of = types.and_then(|types| types.get(&column)).cloned();
            arrays.extend(number.zip(of));
        }
    }
    arrays
}

/// The findings about one statement.
struct Judge<'a> {
    schema: &'a Schema,
    /// The queries of `with`, the innermost last.
    ctes: Vec<String>,
    /// The number of uses of tables of tenants.
    judged: usize,
    /// The parameters that name its tenants.
    parameters: BTreeSet<String>,
    /// The functions that are used as a table.
    functions: BTreeSet<String>,
    /// Whether it writes to a distributed table.
    is_written_on_nodes: bool,
    faults: Vec<String>,
}

impl Judge<'_> {
    fn conclude(&mut self, statement: &Statement) {
        if self.parameters.len() > 1 {
            self.faults.push(format!("names several tenants: {:?}", self.parameters));
        }
        let mut named = 0;
        let mut on_the_coordinator = BTreeSet::new();
        let _ = visit_relations(statement, |name| {
            let name = last_part(name);
            named += usize::from(self.schema.is_of_tenants(&name));
            if ON_THE_COORDINATOR.contains(&name.as_str()) {
                on_the_coordinator.insert(name);
            }
            ControlFlow::<()>::Continue(())
        });
        if named != self.judged {
            let judged = self.judged;
            self.faults.push(format!("{named} tables of tenants, of which {judged} were judged"));
        }
        if named > 0 && !on_the_coordinator.is_empty() {
            self.faults.push(format!("meets {on_the_coordinator:?} of the coordinator"));
        }
        if self.is_written_on_nodes {
            self.judge_written(statement);
        }
    }

    /// Checks the values of a statement that writes, because each node computes them itself.
    fn judge_written(&mut self, statement: &Statement) {
        let mut functions = std::mem::take(&mut self.functions);
        let _ = visit_expressions(statement, |expression| {
            match expression {
                Expr::Function(function) => {
                    functions.insert(last_part(&function.name));
                }
                Expr::Cast { data_type, .. } => {
                    let to = data_type.to_string().to_lowercase();
                    if !PLAIN_TYPES.contains(&to.trim_end_matches("[]")) {
                        self.faults.push(format!("casts to {to} what it writes"));
                    }
                }
                _ => {}
            }
            ControlFlow::<()>::Continue(())
        });
        for function in functions.iter().filter(|name| !IMMUTABLE.contains(&name.as_str())) {
            self.faults.push(format!("calls {function}, which is not known to be immutable"));
        }
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Query(query) => self.query(query),
            Statement::Insert(insert) => self.insert(insert),
            Statement::Update(update) => self.update(update),
            Statement::Delete(delete) => self.delete(delete),
            // These are about a transaction, not about rows.
            Statement::StartTransaction { .. } | Statement::Commit { .. } => {}
            Statement::Rollback { .. } | Statement::Set(_) | Statement::ShowVariable { .. } => {}
            Statement::Truncate(truncate) if truncate.table_names.iter().all(is_of_coordinator) => {
            }
            other => self.faults.push(format!("cannot be judged: {other}")),
        }
    }

    fn query(&mut self, query: &Query) {
        let known = self.ctes.len();
        let is_recursive = query.with.as_ref().is_some_and(|with| with.recursive);
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let (before, name) = (self.ctes.len(), cte.alias.name.value.to_lowercase());
            if is_recursive {
                self.ctes.push(name.clone());
            }
            self.query(&cte.query);
            self.ctes.truncate(before);
            self.ctes.push(name);
        }
        self.body(&query.body);
        self.subqueries(&query.order_by);
        self.subqueries(&query.limit_clause);
        self.subqueries(&query.fetch);
        self.ctes.truncate(known);
    }

    fn body(&mut self, body: &SetExpr) {
        match body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::Query(query) => self.query(query),
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left);
                self.body(right);
            }
            SetExpr::Values(values) => self.subqueries(values),
            SetExpr::Insert(statement)
            | SetExpr::Update(statement)
            | SetExpr::Delete(statement) => self.statement(statement),
            SetExpr::Merge(_) | SetExpr::Table(_) => {
                self.faults.push(format!("cannot be judged: {body}"));
            }
        }
    }

    fn select(&mut self, select: &Select) {
        self.scope(&select.from, select.selection.as_ref());
        let mut rest = select.clone();
        rest.from = Vec::new();
        self.subqueries(&rest);
    }

    fn insert(&mut self, insert: &Insert) {
        let TableObject::TableName(name) = &insert.table else {
            self.faults.push(format!("cannot be judged: {insert}"));
            return;
        };
        self.note_written(name);
        let mut target = self.table(name, None);
        if let Some(query) = &insert.source {
            self.query(query);
            if let Some(table) = target.table.clone() {
                target.tenant = self.inserted(&table, &insert.columns, &query.body);
            }
        }
        let is_of_tenants = target.table.is_some();
        let mut scope = Scope::default();
        scope.relations.push(target);
        self.take(&scope);
        if let Some(OnInsert::OnConflict(conflict)) = &insert.on {
            self.conflict(conflict, is_of_tenants);
        }
        self.subqueries(&insert.returning);
    }

    /// Checks the inserted rows of a table of tenants, and returns the parameter of their tenant.
    fn inserted(
        &mut self,
        table: &str,
        columns: &[ObjectName],
        source: &SetExpr,
    ) -> Option<String> {
        let SetExpr::Values(values) = source else {
            self.faults.push(format!("inserts into {table} what it selects, and not values"));
            return None;
        };
        let mut tenants = BTreeSet::new();
        for row in &values.rows {
            for (column, value) in columns.iter().map(last_part).zip(row.iter()) {
                if column == TENANT {
                    tenants.insert(parameter(value));
                }
                if let Some(fault) = self.unnested(table, &column, value) {
                    self.faults.push(fault);
                }
            }
        }
        if tenants.len() == 1 { tenants.pop_first().flatten() } else { None }
    }

    /// The fault of an unnested array, if the value comes from one.
    fn unnested(&self, table: &str, column: &str, value: &Expr) -> Option<String> {
        let Expr::Function(function) = value else {
            let mut is_inside = false;
            let _ = visit_expressions(value, |inner| {
                is_inside |= matches!(inner, Expr::Function(of) if last_part(&of.name) == ROWS);
                ControlFlow::<()>::Continue(())
            });
            return is_inside.then(|| format!("computes with {ROWS} for {table}.{column}"));
        };
        if last_part(&function.name) != ROWS {
            return None;
        }
        let of = self.schema.tables.get(table).and_then(|known| known.types.get(column));
        let is_narrow = of.is_some_and(|of| ["smallint", "integer", "int"].contains(&of.as_str()));
        let expected = of.filter(|_| is_narrow).map(|of| format!("{of}[]"));
        let cast = match argument(function) {
            Some(Expr::Cast { expr, data_type, .. }) if parameter(expr).is_some() => {
                Some(data_type.to_string().to_lowercase())
            }
            Some(plain) if parameter(plain).is_some() => None,
            Some(_) | None => return Some(format!("computes what {ROWS} takes for {column}")),
        };
        let is_as_expected = expected.is_none() || cast == expected;
        (!is_as_expected).then(|| format!("{table}.{column} takes {cast:?}, not {expected:?}"))
    }

    fn conflict(&mut self, conflict: &OnConflict, is_of_tenants: bool) {
        if let Some(ConflictTarget::Columns(columns)) = &conflict.conflict_target {
            let starts = columns.first().is_some_and(|first| first.value == TENANT);
            if is_of_tenants && !starts {
                self.faults.push(format!("on conflict does not start with {TENANT}"));
            }
        }
        if let OnConflictAction::DoUpdate(update) = &conflict.action {
            self.assignments(&update.assignments, is_of_tenants);
        }
        self.subqueries(conflict);
    }

    fn update(&mut self, update: &Update) {
        let others = match &update.from {
            Some(UpdateTableFromKind::AfterSet(from) | UpdateTableFromKind::BeforeSet(from)) => {
                from.as_slice()
            }
            None => &[],
        };
        let from = [std::slice::from_ref(&update.table), others].concat();
        self.note_target(&update.table.relation);
        let scope = self.scope(&from, update.selection.as_ref());
        let target = scope.relations.first().and_then(|target| target.table.as_ref());
        self.assignments(&update.assignments, target.is_some());
        self.subqueries(&update.assignments);
        self.subqueries(&update.selection);
        self.subqueries(&update.returning);
    }

    fn delete(&mut self, delete: &Delete) {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        let others = delete.using.as_deref().unwrap_or_default();
        for target in from {
            self.note_target(&target.relation);
        }
        self.scope(&[from.as_slice(), others].concat(), delete.selection.as_ref());
        self.subqueries(&delete.selection);
        self.subqueries(&delete.returning);
    }

    fn note_target(&mut self, target: &TableFactor) {
        if let TableFactor::Table { name, .. } = target {
            self.note_written(name);
        }
    }

    fn note_written(&mut self, name: &ObjectName) {
        self.is_written_on_nodes |= !ON_THE_COORDINATOR.contains(&last_part(name).as_str());
    }

    /// Checks that no assignment moves a row to another tenant.
    fn assignments(&mut self, assignments: &[Assignment], is_of_tenants: bool) {
        let moves = |name: &ObjectName| last_part(name) == TENANT;
        let any = assignments.iter().any(|assignment| match &assignment.target {
            AssignmentTarget::ColumnName(name) => moves(name),
            AssignmentTarget::Tuple(names) => names.iter().any(moves),
        });
        if any && is_of_tenants {
            self.faults.push(format!("changes {TENANT}"));
        }
    }

    /// The tables of one `from`, bound by its conditions and checked.
    fn scope(&mut self, from: &[TableWithJoins], selection: Option<&Expr>) -> Scope {
        let mut scope = Scope::default();
        for tables in from {
            self.tables(tables, &mut scope);
        }
        if let Some(condition) = selection {
            scope.add_condition(condition, None);
        }
        scope.bind();
        self.take(&scope);
        scope
    }

    /// Notes how the tables of a scope are bound.
    fn take(&mut self, scope: &Scope) {
        for (table, parameter) in scope.tenants() {
            match parameter {
                Some(parameter) => drop(self.parameters.insert(parameter)),
                None => self.faults.push(format!("{table} is not bound to one tenant")),
            }
        }
    }

    fn tables(&mut self, tables: &TableWithJoins, scope: &mut Scope) {
        let first = scope.relations.len();
        self.factor(&tables.relation, scope);
        for join in &tables.joins {
            let right = scope.relations.len();
            self.factor(&join.relation, scope);
            let (left, right) = scope.relations.split_at(right);
            let names = |side: &[Relation]| side.iter().map(|one| one.alias.clone()).collect();
            let left = names(left.get(first..).unwrap_or_default());
            let right: Vec<String> = names(right);
            self.join(join, scope, left, right);
        }
    }

    fn join(&mut self, join: &Join, scope: &mut Scope, left: Vec<String>, right: Vec<String>) {
        let (constraint, binds) = match &join.join_operator {
            JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::CrossJoin(constraint) => (constraint, None),
            JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
                (constraint, Some(right))
            }
            JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
                (constraint, Some(left))
            }
            JoinOperator::FullOuter(constraint) => (constraint, Some(Vec::new())),
            _ => {
                self.faults.push(format!("cannot be judged: {join}"));
                return;
            }
        };
        match constraint {
            JoinConstraint::On(condition) => {
                scope.add_condition(condition, binds.as_deref());
                self.subqueries(condition);
            }
            JoinConstraint::None => {}
            // A natural join depends on columns of later migrations. `using` is not supported,
            // because `on` says the same.
            JoinConstraint::Natural | JoinConstraint::Using(_) => {
                self.faults.push(format!("join with on: {join}"));
            }
        }
    }

    fn factor(&mut self, factor: &TableFactor, scope: &mut Scope) {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let relation = self.table(name, alias.as_ref());
                scope.relations.push(relation);
            }
            TableFactor::Derived { subquery, alias, .. } => {
                self.query(subquery);
                scope.relations.push(derived(alias.as_ref()));
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.tables(table_with_joins, scope);
            }
            TableFactor::Table { name, alias, args: Some(_), .. }
            | TableFactor::Function { name, alias, .. } => {
                self.functions.insert(last_part(name));
                self.subqueries(factor);
                scope.relations.push(derived(alias.as_ref()));
            }
            TableFactor::UNNEST { alias, .. } => {
                self.subqueries(factor);
                scope.relations.push(derived(alias.as_ref()));
            }
            _ => self.faults.push(format!("cannot be judged: {factor}")),
        }
    }

    /// A table by its name: a query of `with`, or a table of the schema.
    fn table(&mut self, name: &ObjectName, alias: Option<&TableAlias>) -> Relation {
        let name = last_part(name);
        let shown = alias.map_or(name.clone(), |alias| alias.name.value.to_lowercase());
        if self.ctes.contains(&name) {
            return Relation { alias: shown, table: None, tenant: None };
        }
        let table = self.schema.is_of_tenants(&name).then_some(name);
        self.judged += usize::from(table.is_some());
        if table.is_some() && alias.is_some_and(|alias| !alias.columns.is_empty()) {
            self.faults.push(format!("cannot be judged: other names for the columns of {shown}"));
        }
        Relation { alias: shown, table, tenant: None }
    }

    /// Checks the queries inside a node that is not a query itself.
    fn subqueries(&mut self, node: &impl Visit) {
        let _ = node.visit(&mut Subqueries { judge: self, depth: 0 });
    }
}

/// Visits the queries of an expression.
struct Subqueries<'a, 'b> {
    judge: &'a mut Judge<'b>,
    depth: usize,
}

impl Visitor for Subqueries<'_, '_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if self.depth == 0 {
            // The check of a query includes its subqueries.
            self.judge.query(query);
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

/// Whether the table of a `truncate` stays on the coordinator.
fn is_of_coordinator(target: &TruncateTableTarget) -> bool {
    ON_THE_COORDINATOR.contains(&last_part(&target.name).as_str())
}

/// A subquery or a set-returning function in a `from`, through which no tenant is bound.
fn derived(alias: Option<&TableAlias>) -> Relation {
    let alias = alias.map(|alias| alias.name.value.to_lowercase()).unwrap_or_default();
    Relation { alias, table: None, tenant: None }
}

/// The only argument of a function.
fn argument(function: &Function) -> Option<&Expr> {
    let FunctionArguments::List(list) = &function.args else { return None };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(only))] => Some(only),
        _ => None,
    }
}
