//! Finds the tables of a query whose tenant is bound to a parameter.

use std::collections::BTreeMap;

use sqlparser::ast::{BinaryOperator, Expr, Value};

use crate::postgres::schema::TENANT;

/// A table, subquery or function in a `from`.
#[derive(Clone, Debug)]
pub(crate) struct Relation {
    pub(crate) alias: String,
    /// The table's name, if it is a table of tenants.
    pub(crate) table: Option<String>,
    /// The parameter that its tenant equals, such as `$1`.
    pub(crate) tenant: Option<String>,
}

/// The relations of one query, and the equalities in its conditions.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    pub(crate) relations: Vec<Relation>,
    equalities: Vec<Equality>,
}

/// Two expressions that are equal in every row.
///
/// The condition of an outer join binds only the relations on one of its sides.
#[derive(Clone, Debug)]
struct Equality {
    left: Expr,
    right: Expr,
    binds: Option<Vec<String>>,
}

impl Scope {
    /// Adds the equalities of a condition; `binds` names the relations that it applies to.
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
            // Other conditions bind nothing to one value.
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

    /// Binds all tables whose tenant equals a parameter, directly or through other tables.
    pub(crate) fn bind(&mut self) {
        let mut changed = true;
        while changed {
            changed = false;
            for Equality { left, right, binds } in self.equalities.clone() {
                for (to, from) in [(&left, &right), (&right, &left)] {
                    if let Some(parameter) = self.tenant(from) {
                        changed |= self.set(to, &parameter, binds.as_deref());
                    }
                }
            }
        }
    }

    /// The parameter of an expression: itself, or the one that its `tenant_id` column is bound to.
    ///
    /// Only tables of tenants count, because Citus does not look through subqueries, functions and
    /// reference tables.
    fn tenant(&self, expression: &Expr) -> Option<String> {
        parameter(expression).or_else(|| {
            let alias = tenant_of(expression)?;
            let meant = self.relations.iter().filter(|one| one.table.is_some());
            let mut meant =
                meant.filter(|one| alias.as_ref().is_none_or(|name| one.alias == *name));
            meant.find_map(|relation| relation.tenant.clone())
        })
    }

    /// Binds the tables of an expression that are not bound yet, and returns whether there were any.
    fn set(&mut self, expression: &Expr, parameter: &str, binds: Option<&[String]>) -> bool {
        let Some(alias) = tenant_of(expression) else { return false };
        let mut changed = false;
        for relation in &mut self.relations {
            let is_bound = binds.is_none_or(|binds| binds.contains(&relation.alias));
            let is_meant = alias.as_ref().is_none_or(|alias| *alias == relation.alias);
            if is_bound && is_meant && relation.tenant.is_none() {
                relation.tenant = Some(parameter.to_owned());
                changed = true;
            }
        }
        changed
    }

    /// All tables of tenants, each with the parameter that its tenant equals.
    pub(crate) fn tenants(&self) -> BTreeMap<String, Option<String>> {
        let of_tenants = |relation: &Relation| {
            let table = relation.table.as_ref()?;
            Some((format!("{table} as {}", relation.alias), relation.tenant.clone()))
        };
        self.relations.iter().filter_map(of_tenants).collect()
    }
}

/// The parameter in an expression that is one, with or without a cast.
pub(crate) fn parameter(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Nested(inner) | Expr::Cast { expr: inner, .. } => parameter(inner),
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => Some(name.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// The alias, if there is one, of an expression that is a `tenant_id` column.
fn tenant_of(expression: &Expr) -> Option<Option<String>> {
    let (alias, name) = match expression {
        Expr::Nested(inner) => return tenant_of(inner),
        Expr::Identifier(name) => (None, name),
        Expr::CompoundIdentifier(parts) => {
            let [.., alias, name] = parts.as_slice() else { return None };
            (Some(alias.value.to_lowercase()), name)
        }
        _ => return None,
    };
    (name.value.to_lowercase() == TENANT).then_some(alias)
}
