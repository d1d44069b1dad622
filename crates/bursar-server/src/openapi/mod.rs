//! The OpenAPI document and its HTML page.

mod document;
mod finish;
mod page;

use std::sync::LazyLock;

use crate::http::fixed_text::{Documents, FixedText};

pub use self::document::document;

/// The document and its page, each built on first use.
pub(crate) static DOCUMENTS: Documents = Documents {
    openapi: LazyLock::new(|| FixedText::new("application/json", document().to_string())),
    page: LazyLock::new(|| FixedText::new("text/html; charset=utf-8", page::html())),
    style: LazyLock::new(|| {
        FixedText::new("text/css; charset=utf-8", include_str!("page.css").to_owned())
    }),
};
