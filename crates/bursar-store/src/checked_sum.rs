//! Figures that are added up: each addition is checked, and one that does not fit names its figure.

#![warn(clippy::arithmetic_side_effects)]

use crate::error::StoreError;

/// The figure that is told when a sum does not fit.
pub(crate) fn too_large(figure: &'static str) -> StoreError {
    StoreError::TotalsOverflow(figure.to_owned())
}

/// Adds to a figure of 64 bits.
///
/// # Errors
/// [`StoreError::TotalsOverflow`]; then the figure is as it was.
pub(crate) fn add(sum: &mut i64, more: i64, figure: &'static str) -> Result<(), StoreError> {
    *sum = sum.checked_add(more).ok_or_else(|| too_large(figure))?;
    Ok(())
}

/// Adds to a figure of 128 bits.
pub(crate) fn add_wide(sum: &mut i128, more: i128, figure: &'static str) -> Result<(), StoreError> {
    *sum = sum.checked_add(more).ok_or_else(|| too_large(figure))?;
    Ok(())
}
