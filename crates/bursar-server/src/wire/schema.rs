//! Parts of the OpenAPI document that several handlers share.

use std::borrow::Cow;

use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, SchemaType};
use utoipa::openapi::{Ref, RefOr, Required, Schema};
use utoipa::{PartialSchema, ToSchema};

/// The integration in examples.
pub const EXAMPLE_ID: &str = "00064cf9-f9f4-8fc4-a2a7-2d1d4b3a5c6e";

/// An optional query parameter.
pub(crate) fn query<T: PartialSchema>(name: &str, description: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(T::schema()))
        .build()
}

/// One record of a batch. Anything else fails alone.
#[derive(Debug)]
pub(crate) struct BatchRecord;

impl PartialSchema for BatchRecord {
    fn schema() -> RefOr<Schema> {
        let anything = ObjectBuilder::new()
            .schema_type(SchemaType::AnyValue)
            .description(Some("Anything else becomes an `error` in the place of this record."));
        let record = Ref::from_schema_name("UsageRecord");
        RefOr::T(Schema::from(AnyOfBuilder::new().item(record).item(anything).build()))
    }
}

impl ToSchema for BatchRecord {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("BatchRecord")
    }
}
