//! Checked addition of figures. An overflow names the figure that does not fit.

#![warn(clippy::arithmetic_side_effects)]

use crate::error::StoreError;

/// The error for a figure whose sum does not fit.
pub(crate) fn too_large(figure: &'static str) -> StoreError {
    StoreError::TotalsOverflow(figure.to_owned())
}

/// Adds to a 64-bit figure.
///
/// # Errors
/// [`StoreError::TotalsOverflow`]; the figure then stays unchanged.
pub(crate) fn add(sum: &mut i64, more: i64, figure: &'static str) -> Result<(), StoreError> {
    *sum = sum.checked_add(more).ok_or_else(|| too_large(figure))?;
    Ok(())
}

/// Adds to a 128-bit figure; errors are those of [`add`].
pub(crate) fn add_wide(sum: &mut i128, more: i128, figure: &'static str) -> Result<(), StoreError> {
    *sum = sum.checked_add(more).ok_or_else(|| too_large(figure))?;
    Ok(())
}
