//! Which columns of a query are bound to a parameter of its statement.

use std::collections::BTreeMap;

use sqlparser::ast::{BinaryOperator, Expr, Value};

use crate::schema::TENANT;

/// A column that a query answers, and the parameter that it equals, as `$1`.
pub(crate) type Output = (String, Option<String>);

/// A table, or what stands for one, of one `from`.
#[derive(Clone, Debug)]
pub(crate) struct Relation {
    pub(crate) alias: String,
    /// The name of a table of tenants.
    pub(crate) table: Option<String>,
    pub(crate) columns: Vec<Output>,
}

/// The relations of one query, and what its conditions say is equal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    pub(crate) relations: Vec<Relation>,
    equalities: Vec<Equality>,
}

/// Two expressions that are equal in every row; a join that keeps rows without a partner says
/// something of the relations on one of its sides only.
#[derive(Clone, Debug)]
struct Equality {
    left: Expr,
    right: Expr,
    binds: Option<Vec<String>>,
}

impl Scope {
    /// Takes what a condition says in all of its parts; `binds` names the relations it speaks of.
    pub(crate) fn add_condition(&mut self, condition: &Expr, binds: Option<&[String]>) {
        match condition {
            Expr::Nested(inner) => self.add_condition(inner, binds),
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                self.add_condition(left, binds);
                self.add_condition(right, binds);
            }
            Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
                self.add_equality(left, right, binds);
            }
            // Whatever else it says binds nothing to one value.
            _ => {}
        }
    }

    fn add_equality(&mut self, left: &Expr, right: &Expr, binds: Option<&[String]>) {
        if let (Expr::Tuple(left), Expr::Tuple(right)) = (left, right) {
            for (left, right) in left.iter().zip(right) {
                self.add_equality(left, right, binds);
            }
            return;
        }
        let (left, right) = (left.clone(), right.clone());
        self.equalities.push(Equality { left, right, binds: binds.map(<[String]>::to_vec) });
    }

    /// Binds all columns that equal a parameter, by however many steps.
    pub(crate) fn bind(&mut self, outer: &[Scope]) {
        let mut changed = true;
        while changed {
            changed = false;
            for Equality { left, right, binds } in self.equalities.clone() {
                for (to, from) in [(&left, &right), (&right, &left)] {
                    if let Some(parameter) = self.parameter(from, outer) {
                        changed |= self.set(to, &parameter, binds.as_deref());
                    }
                }
            }
        }
    }

    /// The parameter that an expression equals.
    pub(crate) fn parameter(&self, expression: &Expr, outer: &[Scope]) -> Option<String> {
        match expression {
            Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => self.parameter(inner, outer),
            Expr::Value(value) => match &value.value {
                Value::Placeholder(name) => Some(name.clone()),
                _ => None,
            },
            _ => {
                let (alias, name) = column(expression)?;
                let scopes = std::iter::once(self).chain(outer.iter().rev());
                // The nearest query that has such a column is meant.
                let mut found = scopes.map(|scope| scope.columns(alias.as_deref(), &name));
                found.find(|columns| !columns.is_empty())?.first().cloned().flatten()
            }
        }
    }

    /// What is known of the columns of a name, of one relation or of all.
    fn columns(&self, alias: Option<&str>, name: &str) -> Vec<Option<String>> {
        let named = |relation: &&Relation| alias.is_none_or(|alias| relation.alias == alias);
        let columns = self.relations.iter().filter(named).flat_map(|relation| &relation.columns);
        columns.filter(|(known, _)| known == name).map(|(_, parameter)| parameter.clone()).collect()
    }

    /// Binds a column that is not bound yet, and answers whether there was one.
    fn set(&mut self, expression: &Expr, parameter: &str, binds: Option<&[String]>) -> bool {
        let Some((alias, name)) = column(expression) else { return false };
        let mut changed = false;
        for relation in &mut self.relations {
            let is_bound = binds.is_none_or(|binds| binds.contains(&relation.alias));
            if !is_bound || alias.as_ref().is_some_and(|alias| *alias != relation.alias) {
                continue;
            }
            for (known, bound) in &mut relation.columns {
                if *known == name && bound.is_none() {
                    *bound = Some(parameter.to_owned());
                    changed = true;
                }
            }
        }
        changed
    }

    /// Every table of tenants here, and the parameter that its tenant equals.
    pub(crate) fn tenants(&self) -> BTreeMap<String, Option<String>> {
        let of_tenants = |relation: &Relation| {
            let table = relation.table.as_ref()?;
            let tenant = relation.columns.iter().find(|(name, _)| name == TENANT);
            let parameter = tenant.and_then(|(_, parameter)| parameter.clone());
            Some((format!("{table} as {}", relation.alias), parameter))
        };
        self.relations.iter().filter_map(of_tenants).collect()
    }
}

/// The relation, if it is named, and the name of a column.
fn column(expression: &Expr) -> Option<(Option<String>, String)> {
    match expression {
        Expr::Nested(inner) => column(inner),
        Expr::Identifier(name) => Some((None, name.value.to_lowercase())),
        Expr::CompoundIdentifier(parts) => {
            let [.., alias, name] = parts.as_slice() else { return None };
            Some((Some(alias.value.to_lowercase()), name.value.to_lowercase()))
        }
        _ => None,
    }
}
