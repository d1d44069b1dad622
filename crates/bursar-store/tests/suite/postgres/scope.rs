//! Which tables of one query are bound to a parameter of its statement.

use std::collections::BTreeMap;

use sqlparser::ast::{BinaryOperator, Expr, Value};

use crate::postgres::schema::TENANT;

/// A table, or what stands for one, of one `from`.
#[derive(Clone, Debug)]
pub(crate) struct Relation {
    pub(crate) alias: String,
    /// The name of a table of tenants.
    pub(crate) table: Option<String>,
    /// The parameter that its tenant equals, as `$1`.
    pub(crate) tenant: Option<String>,
}

/// The relations of one query, and what its conditions say is equal.
#[derive(Debug, Default)]
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

    /// Binds all tables whose tenant equals a parameter, by however many other tables of tenants.
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

    /// The parameter that an expression is, or that the tenant equals whose column it is. Only a
    /// table of tenants hands it on: Citus follows no subquery, function or reference table.
    fn tenant(&self, expression: &Expr) -> Option<String> {
        parameter(expression).or_else(|| {
            let alias = tenant_of(expression)?;
            let meant = self.relations.iter().filter(|one| one.table.is_some());
            let mut meant =
                meant.filter(|one| alias.as_ref().is_none_or(|name| one.alias == *name));
            meant.find_map(|relation| relation.tenant.clone())
        })
    }

    /// Binds tables that are not bound yet, and answers whether there was one.
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

    /// Every table of tenants here, and the parameter that its tenant equals.
    pub(crate) fn tenants(&self) -> BTreeMap<String, Option<String>> {
        let of_tenants = |relation: &Relation| {
            let table = relation.table.as_ref()?;
            Some((format!("{table} as {}", relation.alias), relation.tenant.clone()))
        };
        self.relations.iter().filter_map(of_tenants).collect()
    }
}

/// The parameter that an expression is, with or without a cast.
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

/// The relation, if it is named, of an expression that is a column of tenants.
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
