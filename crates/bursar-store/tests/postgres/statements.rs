//! Whether a statement is about one tenant only, and says so at every table.
//!
//! A table of tenants is named with its tenant when a condition that every row meets makes its
//! `tenant_id` equal to a parameter, directly or through other columns. A statement has one such
//! parameter. What cannot be judged is a fault: nothing passes because it was not understood.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Assignment, AssignmentTarget, ConflictTarget, Delete, Expr, FromTable, Insert, Join,
    JoinConstraint, JoinOperator, ObjectName, OnConflict, OnConflictAction, OnInsert, Query,
    Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Statement, TableAlias,
    TableFactor, TableObject, TableWithJoins, Update, UpdateTableFromKind, Values, Visit, Visitor,
    visit_relations,
};

use crate::schema::{Schema, TENANT, last_part, parse};
use crate::scope::{Output, Relation, Scope};

/// Everything that breaks the rule in one text of a statement or more.
pub(crate) fn faults(schema: &Schema, sql: &str) -> Vec<String> {
    let statements = match parse(sql) {
        Ok(statements) => statements,
        Err(error) => return vec![format!("cannot be read: {error}")],
    };
    let mut faults = Vec::new();
    for statement in &statements {
        let mut judge = Judge {
            schema,
            ctes: Vec::new(),
            judged: 0,
            parameters: BTreeSet::new(),
            faults: Vec::new(),
        };
        judge.statement(statement, &[]);
        judge.conclude(statement);
        faults.append(&mut judge.faults);
    }
    faults
}

/// What has been found of one statement.
struct Judge<'a> {
    schema: &'a Schema,
    /// What the queries of `with` answer, the nearest last.
    ctes: Vec<(String, Vec<Output>)>,
    /// How often a table of tenants was met.
    judged: usize,
    /// The parameters that name its tenants.
    parameters: BTreeSet<String>,
    faults: Vec<String>,
}

impl Judge<'_> {
    fn conclude(&mut self, statement: &Statement) {
        if self.parameters.len() > 1 {
            self.faults.push(format!("names several tenants: {:?}", self.parameters));
        }
        let mut named = 0;
        let _ = visit_relations(statement, |name| {
            named += usize::from(self.schema.is_of_tenants(&last_part(name)));
            ControlFlow::<()>::Continue(())
        });
        if named != self.judged {
            let judged = self.judged;
            self.faults.push(format!("{named} tables of tenants, of which {judged} were judged"));
        }
    }

    /// Judges a statement and answers what it returns.
    fn statement(&mut self, statement: &Statement, outer: &[Scope]) -> Vec<Output> {
        match statement {
            Statement::Query(query) => self.query(query, outer),
            Statement::Insert(insert) => self.insert(insert, outer),
            Statement::Update(update) => self.update(update, outer),
            Statement::Delete(delete) => self.delete(delete, outer),
            // They are about a transaction, not about rows.
            Statement::StartTransaction { .. } | Statement::Commit { .. } => Vec::new(),
            Statement::Rollback { .. } | Statement::Set(_) | Statement::ShowVariable { .. } => {
                Vec::new()
            }
            other => {
                self.faults.push(format!("cannot be judged: {other}"));
                Vec::new()
            }
        }
    }

    fn query(&mut self, query: &Query, outer: &[Scope]) -> Vec<Output> {
        let known = self.ctes.len();
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let name = cte.alias.name.value.to_lowercase();
            let is_recursive = query.with.as_ref().is_some_and(|with| with.recursive);
            if let (true, SetExpr::SetOperation { left, .. }) = (is_recursive, &*cte.query.body) {
                // What it begins with is judged once more as a part of the whole.
                let (judged, faults) = (self.judged, self.faults.len());
                let first = self.body(left, outer);
                self.judged = judged;
                self.faults.truncate(faults);
                self.ctes.push((name.clone(), renamed(first, Some(&cte.alias))));
            }
            let outputs = self.query(&cte.query, outer);
            self.ctes.push((name, renamed(outputs, Some(&cte.alias))));
        }
        let outputs = self.body(&query.body, outer);
        self.subqueries(&query.order_by, outer);
        self.subqueries(&query.limit_clause, outer);
        self.subqueries(&query.fetch, outer);
        self.ctes.truncate(known);
        outputs
    }

    fn body(&mut self, body: &SetExpr, outer: &[Scope]) -> Vec<Output> {
        match body {
            SetExpr::Select(select) => self.select(select, outer),
            SetExpr::Query(query) => self.query(query, outer),
            SetExpr::SetOperation { left, right, .. } => {
                let (left, right) = (self.body(left, outer), self.body(right, outer));
                let both = left.into_iter().zip(right);
                let agreed = |one: Option<String>, other| if one == other { one } else { None };
                both.map(|((name, one), (_, other))| (name, agreed(one, other))).collect()
            }
            SetExpr::Values(values) => self.values(values, outer),
            SetExpr::Insert(statement)
            | SetExpr::Update(statement)
            | SetExpr::Delete(statement) => self.statement(statement, outer),
            SetExpr::Merge(_) | SetExpr::Table(_) => {
                self.faults.push(format!("cannot be judged: {body}"));
                Vec::new()
            }
        }
    }

    fn values(&mut self, values: &Values, outer: &[Scope]) -> Vec<Output> {
        self.subqueries(values, outer);
        let nowhere = Scope::default();
        let width = values.rows.first().map_or(0, |row| row.len());
        let column = |at: usize| {
            let mut bound = values.rows.iter().map(|row| nowhere.parameter(row.get(at)?, outer));
            let first = bound.next().flatten();
            first.filter(|first| bound.all(|other| other.as_ref() == Some(first)))
        };
        (0..width).map(|at| (format!("column{}", at + 1), column(at))).collect()
    }

    fn select(&mut self, select: &Select, outer: &[Scope]) -> Vec<Output> {
        let scope = self.scope(&select.from, select.selection.as_ref(), outer);
        let scopes = [outer, std::slice::from_ref(&scope)].concat();
        // The conditions of joins may ask further queries, the tables have been judged.
        for condition in select.from.iter().flat_map(|from| &from.joins).filter_map(condition) {
            self.subqueries(condition, &scopes);
        }
        let mut rest = select.clone();
        rest.from = Vec::new();
        self.subqueries(&rest, &scopes);
        outputs(&select.projection, &scope, outer)
    }

    fn insert(&mut self, insert: &Insert, outer: &[Scope]) -> Vec<Output> {
        let TableObject::TableName(name) = &insert.table else {
            self.faults.push(format!("cannot be judged: {insert}"));
            return Vec::new();
        };
        let sources = insert.source.as_ref().map(|query| self.query(query, outer));
        let mut target = self.table(name, None);
        if let Some(alias) = &insert.table_alias {
            target.alias = alias.alias.value.to_lowercase();
        }
        let inserted: Vec<String> = insert.columns.iter().map(last_part).collect();
        for (column, (_, parameter)) in inserted.iter().zip(sources.unwrap_or_default()) {
            let known = target.columns.iter_mut().find(|(name, _)| name == column);
            if let Some((_, bound)) = known {
                *bound = parameter;
            }
        }
        let excluded = Relation { alias: "excluded".to_owned(), table: None, ..target.clone() };
        let is_of_tenants = target.table.is_some();
        let mut scope = Scope::default();
        scope.relations.push(target);
        self.take(&scope);
        scope.relations.push(excluded);
        if let Some(OnInsert::OnConflict(conflict)) = &insert.on {
            let scopes = [outer, std::slice::from_ref(&scope)].concat();
            self.conflict(conflict, is_of_tenants, &scopes);
        }
        scope.relations.pop();
        outputs(insert.returning.as_deref().unwrap_or_default(), &scope, outer)
    }

    fn conflict(&mut self, conflict: &OnConflict, is_of_tenants: bool, scopes: &[Scope]) {
        if let Some(ConflictTarget::Columns(columns)) = &conflict.conflict_target {
            let starts = columns.first().is_some_and(|first| first.value == TENANT);
            if is_of_tenants && !starts {
                self.faults.push(format!("on conflict does not start with {TENANT}"));
            }
        }
        if let OnConflictAction::DoUpdate(update) = &conflict.action {
            self.assignments(&update.assignments, is_of_tenants);
        }
        self.subqueries(conflict, scopes);
    }

    fn update(&mut self, update: &Update, outer: &[Scope]) -> Vec<Output> {
        let others = match &update.from {
            Some(UpdateTableFromKind::AfterSet(from) | UpdateTableFromKind::BeforeSet(from)) => {
                from.as_slice()
            }
            None => &[],
        };
        let from = [std::slice::from_ref(&update.table), others].concat();
        let scope = self.scope(&from, update.selection.as_ref(), outer);
        let target = scope.relations.first().and_then(|target| target.table.as_ref());
        self.assignments(&update.assignments, target.is_some());
        let scopes = [outer, std::slice::from_ref(&scope)].concat();
        self.subqueries(&update.assignments, &scopes);
        self.subqueries(&update.selection, &scopes);
        self.subqueries(&update.returning, &scopes);
        outputs(update.returning.as_deref().unwrap_or_default(), &scope, outer)
    }

    fn delete(&mut self, delete: &Delete, outer: &[Scope]) -> Vec<Output> {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        let others = delete.using.as_deref().unwrap_or_default();
        let from = [from.as_slice(), others].concat();
        let scope = self.scope(&from, delete.selection.as_ref(), outer);
        let scopes = [outer, std::slice::from_ref(&scope)].concat();
        self.subqueries(&delete.selection, &scopes);
        self.subqueries(&delete.returning, &scopes);
        outputs(delete.returning.as_deref().unwrap_or_default(), &scope, outer)
    }

    /// A row stays with its tenant.
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

    /// The tables of one `from`, bound by its conditions, and judged.
    fn scope(
        &mut self,
        from: &[TableWithJoins],
        selection: Option<&Expr>,
        outer: &[Scope],
    ) -> Scope {
        let mut scope = Scope::default();
        let mut lateral = Vec::new();
        for tables in from {
            self.tables(tables, &mut scope, &mut lateral, outer);
        }
        if let Some(condition) = selection {
            scope.add_condition(condition, None);
        }
        scope.bind(outer);
        for (subquery, alias) in lateral {
            let scopes = [outer, std::slice::from_ref(&scope)].concat();
            let outputs = self.query(&subquery, &scopes);
            scope.relations.push(derived(alias.as_ref(), outputs));
            scope.bind(outer);
        }
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

    fn tables(
        &mut self,
        tables: &TableWithJoins,
        scope: &mut Scope,
        lateral: &mut Vec<(Query, Option<TableAlias>)>,
        outer: &[Scope],
    ) {
        let first = scope.relations.len();
        self.factor(&tables.relation, scope, lateral, outer);
        for join in &tables.joins {
            let right = scope.relations.len();
            self.factor(&join.relation, scope, lateral, outer);
            let (left, right) = scope.relations.split_at(right);
            let names = |side: &[Relation]| side.iter().map(|one| one.alias.clone()).collect();
            let left = names(left.get(first..).unwrap_or_default());
            let right: Vec<String> = names(right);
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
                    continue;
                }
            };
            match constraint {
                JoinConstraint::On(condition) => scope.add_condition(condition, binds.as_deref()),
                JoinConstraint::None => {}
                // The columns of the one depend on what a later migration adds; the other takes
                // more to judge than it saves.
                JoinConstraint::Natural | JoinConstraint::Using(_) => {
                    self.faults.push(format!("join with on: {join}"));
                }
            }
        }
    }

    fn factor(
        &mut self,
        factor: &TableFactor,
        scope: &mut Scope,
        lateral: &mut Vec<(Query, Option<TableAlias>)>,
        outer: &[Scope],
    ) {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let relation = self.table(name, alias.as_ref());
                scope.relations.push(relation);
            }
            TableFactor::Derived { lateral: true, subquery, alias, .. } => {
                lateral.push(((**subquery).clone(), alias.clone()));
            }
            TableFactor::Derived { lateral: false, subquery, alias, .. } => {
                let outputs = self.query(subquery, outer);
                scope.relations.push(derived(alias.as_ref(), outputs));
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.tables(table_with_joins, scope, lateral, outer);
            }
            TableFactor::Table { alias, args: Some(_), .. }
            | TableFactor::Function { alias, .. }
            | TableFactor::UNNEST { alias, .. } => {
                self.subqueries(factor, outer);
                scope.relations.push(derived(alias.as_ref(), Vec::new()));
            }
            _ => self.faults.push(format!("cannot be judged: {factor}")),
        }
    }

    /// A table by its name: what a `with` answers, or one of the schema's.
    fn table(&mut self, name: &ObjectName, alias: Option<&TableAlias>) -> Relation {
        let name = last_part(name);
        let shown = alias.map_or(name.clone(), |alias| alias.name.value.to_lowercase());
        if let Some((_, outputs)) = self.ctes.iter().rev().find(|(known, _)| *known == name) {
            let columns = renamed(outputs.clone(), alias);
            return Relation { alias: shown, table: None, columns };
        }
        let known = self.schema.tables.get(&name);
        let columns = known.map(|table| table.columns.as_slice()).unwrap_or_default();
        let columns = columns.iter().map(|column| (column.clone(), None)).collect();
        let table = self.schema.is_of_tenants(&name).then_some(name);
        self.judged += usize::from(table.is_some());
        Relation { alias: shown, table, columns: renamed(columns, alias) }
    }

    /// Judges the queries inside of something that is no query itself.
    fn subqueries(&mut self, node: &impl Visit, outer: &[Scope]) {
        let _ = node.visit(&mut Subqueries { judge: self, outer, depth: 0 });
    }
}

/// Meets the queries of an expression, each with what is around it.
struct Subqueries<'a, 'b> {
    judge: &'a mut Judge<'b>,
    outer: &'a [Scope],
    depth: usize,
}

impl Visitor for Subqueries<'_, '_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if self.depth == 0 {
            // It meets the queries inside of it by itself.
            self.judge.query(query, self.outer);
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

/// What a list of expressions answers, with the parameters that they equal.
fn outputs(items: &[SelectItem], scope: &Scope, outer: &[Scope]) -> Vec<Output> {
    let all = |alias: Option<&str>| {
        let meant =
            scope.relations.iter().filter(move |one| alias.is_none_or(|name| one.alias == name));
        meant.flat_map(|relation| relation.columns.clone()).collect::<Vec<_>>()
    };
    let mut outputs = Vec::new();
    for item in items {
        match item {
            SelectItem::UnnamedExpr(expression) => {
                let name = match expression {
                    Expr::Identifier(name) => name.value.to_lowercase(),
                    Expr::CompoundIdentifier(parts) => {
                        parts.last().map(|name| name.value.to_lowercase()).unwrap_or_default()
                    }
                    _ => String::new(),
                };
                outputs.push((name, scope.parameter(expression, outer)));
            }
            SelectItem::ExprWithAlias { expr, alias } => {
                outputs.push((alias.value.to_lowercase(), scope.parameter(expr, outer)));
            }
            SelectItem::Wildcard(_) => outputs.extend(all(None)),
            SelectItem::QualifiedWildcard(kind, _) => match kind {
                SelectItemQualifiedWildcardKind::ObjectName(name) => {
                    outputs.extend(all(Some(&last_part(name))));
                }
                SelectItemQualifiedWildcardKind::Expr(_) => outputs.push((String::new(), None)),
            },
            SelectItem::ExprWithAliases { .. } => outputs.push((String::new(), None)),
        }
    }
    outputs
}

/// A query, or a function that answers rows, in a `from`.
fn derived(alias: Option<&TableAlias>, outputs: Vec<Output>) -> Relation {
    let name = alias.map(|alias| alias.name.value.to_lowercase()).unwrap_or_default();
    Relation { alias: name, table: None, columns: renamed(outputs, alias) }
}

/// Columns under the names that an alias gives them.
fn renamed(columns: Vec<Output>, alias: Option<&TableAlias>) -> Vec<Output> {
    let names = alias.map(|alias| alias.columns.as_slice()).unwrap_or_default();
    let mut columns = columns;
    for (at, name) in names.iter().enumerate() {
        let name = name.name.value.to_lowercase();
        match columns.get_mut(at) {
            Some((known, _)) => *known = name,
            None => columns.push((name, None)),
        }
    }
    columns
}

/// What a join says of its tables.
fn condition(join: &Join) -> Option<&Expr> {
    let (JoinOperator::Join(constraint)
    | JoinOperator::Inner(constraint)
    | JoinOperator::Left(constraint)
    | JoinOperator::LeftOuter(constraint)
    | JoinOperator::Right(constraint)
    | JoinOperator::RightOuter(constraint)
    | JoinOperator::FullOuter(constraint)
    | JoinOperator::CrossJoin(constraint)) = &join.join_operator
    else {
        return None;
    };
    match constraint {
        JoinConstraint::On(condition) => Some(condition),
        JoinConstraint::Using(_) | JoinConstraint::Natural | JoinConstraint::None => None,
    }
}
