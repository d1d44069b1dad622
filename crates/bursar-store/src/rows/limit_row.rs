//! The stored form of a limit.

use bursar_core::{
    Allowance, Bound, CalendarUnit, IntegrationId, Label, Limit, LimitId, Measure, Override,
    Quantity, Rule, Scope, Selected, TenantId, Timestamp, WarnPercents, Window, Zone,
};

use crate::error::StoreError;
use crate::rows::codec;
use crate::rows::columns::{Columns, RawColumns};
use crate::rows::row::ManagedBy;
use crate::tables::value::{FromRow, Value, values};

/// A limit of a tenant, with what does not decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitRow {
    pub tenant_id: TenantId,
    pub name: String,
    pub limit: Limit,
    /// Why the amount is overridden.
    pub override_reason: Option<String>,
    pub managed_by: ManagedBy,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub created_by: String,
}

/// The names of the columns, in the order of [`LimitRow::values`].
macro_rules! limit_columns {
    () => {
        "tenant_id, limit_id, name, scope, label_name, value, integration_id, measure, \
         window_kind, time_zone, starts_at, amount, override_amount, override_until, \
         override_reason, action, warn_percents, required, enabled, managed_by, created_at, \
         updated_at, created_by"
    };
}
pub(crate) use limit_columns;

const TENANT: i64 = 1;
const INTEGRATION: i64 = 2;
const MODEL: i64 = 3;
const AGENT: i64 = 4;
const SESSION: i64 = 5;
const KEY: i64 = 6;
const TAG: i64 = 7;

const MINUTE: i64 = 1;
const HOUR: i64 = 2;
const DAY: i64 = 3;
const WEEK: i64 = 4;
const MONTH: i64 = 5;
const TOTAL: i64 = 6;

/// The columns of a scope.
struct ScopeColumns {
    scope: i64,
    label_name: Option<String>,
    value: Option<String>,
    integration_id: Option<IntegrationId>,
}

/// The columns of a window.
#[derive(Default)]
struct WindowColumns {
    window_kind: Option<i64>,
    time_zone: Option<String>,
    starts_at: Option<Timestamp>,
}

/// The columns of an amount. Amounts of limits fit 64 bits.
struct AmountColumns {
    amount: i64,
    overridden: Option<(i64, Timestamp)>,
}

impl LimitRow {
    /// The number of columns.
    pub(crate) const COLUMNS: usize = 23;

    /// The values of a statement that writes the row.
    pub(crate) fn values(&self) -> Vec<Value> {
        let Self { limit, .. } = self;
        let ScopeColumns { scope, label_name, value, integration_id } = scope_columns(&limit.scope);
        let WindowColumns { window_kind, time_zone, starts_at } =
            limit.rule.bound.window().map_or_else(WindowColumns::default, window_columns);
        let AmountColumns { amount, overridden } = amount_columns(&limit.rule.bound);
        let percents: Vec<String> =
            limit.rule.warn_percents.iter().map(|percent| percent.to_string()).collect();
        values![
            self.tenant_id,
            limit.id,
            self.name,
            scope,
            label_name,
            value,
            integration_id,
            codec::measure_code(limit.rule.bound.measure()),
            window_kind,
            time_zone,
            starts_at,
            amount,
            overridden.map(|(amount, _)| amount),
            overridden.map(|(_, until)| until),
            self.override_reason,
            codec::action_code(limit.rule.action),
            percents.join(","),
            i64::from(limit.required),
            i64::from(limit.enabled),
            codec::managed_by_code(self.managed_by),
            self.created_at,
            self.updated_at,
            self.created_by,
        ]
        .into()
    }
}

fn scope_columns(scope: &Scope) -> ScopeColumns {
    let plain = |scope, integration_id| ScopeColumns {
        scope,
        label_name: None,
        value: None,
        integration_id,
    };
    match scope {
        Scope::Tenant => plain(TENANT, None),
        Scope::Integration(integration_id) => plain(INTEGRATION, Some(*integration_id)),
        Scope::EachIntegration => plain(INTEGRATION, None),
        Scope::Label { label, selected, integration_id } => {
            let (scope, label_name) = match label {
                Label::Model => (MODEL, None),
                Label::Agent => (AGENT, None),
                Label::Session => (SESSION, None),
                Label::Key => (KEY, None),
                Label::Tag(name) => (TAG, Some(name.to_string())),
            };
            let value = match selected {
                Selected::One(value) => Some(value.to_string()),
                Selected::Each => None,
            };
            ScopeColumns { scope, label_name, value, integration_id: *integration_id }
        }
    }
}

fn window_columns(window: &Window) -> WindowColumns {
    match window {
        Window::Minute => WindowColumns { window_kind: Some(MINUTE), ..WindowColumns::default() },
        Window::Calendar(unit, zone) => {
            let kind = match unit {
                CalendarUnit::Hour => HOUR,
                CalendarUnit::Day => DAY,
                CalendarUnit::Week => WEEK,
                CalendarUnit::Month => MONTH,
            };
            let time_zone = Some(zone.as_str().to_owned());
            WindowColumns { window_kind: Some(kind), time_zone, starts_at: None }
        }
        Window::Total { starts_at } => {
            WindowColumns { window_kind: Some(TOTAL), time_zone: None, starts_at: Some(*starts_at) }
        }
    }
}

fn amount_columns(bound: &Bound) -> AmountColumns {
    fn of<M: Copy>(allowance: &Allowance<M>) -> AmountColumns {
        let fitting = |of: Quantity<M>| i64::try_from(of.get()).unwrap_or(i64::MAX);
        AmountColumns {
            amount: fitting(allowance.amount),
            overridden: allowance.overridden.map(|over| (fitting(over.amount), over.until)),
        }
    }
    match bound {
        Bound::Cost(_, allowance) => of(allowance),
        Bound::Tokens(_, allowance) => of(allowance),
        Bound::Calls(_, allowance) => of(allowance),
        Bound::Concurrent(allowance) => of(allowance),
    }
}

impl FromRow for LimitRow {
    fn from_row(row: &dyn RawColumns) -> Result<Self, StoreError> {
        Ok(Self {
            tenant_id: row.id(0, TenantId::from_number)?,
            name: row.text(2)?,
            limit: Limit {
                id: row.id(1, LimitId::from_number)?,
                scope: read_scope(row)?,
                rule: Rule {
                    bound: read_bound(row)?,
                    action: codec::action(row.int(15)?)?,
                    warn_percents: read_percents(&row.text::<String>(16)?)?,
                },
                required: row.int::<i64>(17)? != 0,
                enabled: row.int::<i64>(18)? != 0,
            },
            override_reason: row.opt_text(14)?,
            managed_by: codec::managed_by(row.int(19)?)?,
            created_at: row.instant(20)?,
            updated_at: row.instant(21)?,
            created_by: row.text(22)?,
        })
    }
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("a limit has an unknown {what}"))
}

fn read_scope(row: &dyn RawColumns) -> Result<Scope, StoreError> {
    let integration_id = row.opt_id(6, IntegrationId::from_number)?;
    let label = match row.int::<i64>(3)? {
        TENANT => return Ok(Scope::Tenant),
        INTEGRATION => {
            return Ok(integration_id.map_or(Scope::EachIntegration, Scope::Integration));
        }
        MODEL => Label::Model,
        AGENT => Label::Agent,
        SESSION => Label::Session,
        KEY => Label::Key,
        TAG => Label::Tag(row.text(4)?),
        _ => return Err(corrupt("scope")),
    };
    let selected = row.opt_text(5)?.map_or(Selected::Each, Selected::One);
    Ok(Scope::Label { label, selected, integration_id })
}

fn read_window(row: &dyn RawColumns) -> Result<Window, StoreError> {
    let unit = match row.int::<i64>(8)? {
        MINUTE => return Ok(Window::Minute),
        TOTAL => return Ok(Window::Total { starts_at: row.instant(10)? }),
        HOUR => CalendarUnit::Hour,
        DAY => CalendarUnit::Day,
        WEEK => CalendarUnit::Week,
        MONTH => CalendarUnit::Month,
        _ => return Err(corrupt("window")),
    };
    Ok(Window::Calendar(unit, Zone::new(&row.text::<String>(9)?)))
}

fn read_bound(row: &dyn RawColumns) -> Result<Bound, StoreError> {
    Ok(match codec::measure(row.int(7)?)? {
        Measure::Cost => Bound::Cost(read_window(row)?, read_amount(row)?),
        Measure::Tokens => Bound::Tokens(read_window(row)?, read_amount(row)?),
        Measure::Calls => Bound::Calls(read_window(row)?, read_amount(row)?),
        Measure::Concurrent => Bound::Concurrent(read_amount(row)?),
    })
}

fn read_amount<M: Copy>(row: &dyn RawColumns) -> Result<Allowance<M>, StoreError> {
    let amount = Quantity::new(row.int::<i64>(11)?.into());
    let overridden = match (row.opt_number(12)?, row.opt_instant(13)?) {
        (Some(amount), Some(until)) => {
            Some(Override { amount: Quantity::new(amount.into()), until })
        }
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => return Err(corrupt("override")),
    };
    Ok(Allowance { amount, overridden })
}

fn read_percents(text: &str) -> Result<WarnPercents, StoreError> {
    let percents = text.split(',').filter(|percent| !percent.is_empty()).map(str::parse);
    let percents: Vec<u8> =
        percents.collect::<Result<_, _>>().map_err(|_| corrupt("list of percents"))?;
    WarnPercents::new(&percents).ok_or_else(|| corrupt("list of percents"))
}
