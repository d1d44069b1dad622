//! Declares a section of settings: its struct, keys, defaults and documentation.

use super::error::ConfigError;
use super::given::Given;
use super::setting::Setting;

/// A section of settings.
pub(crate) trait Section: Sized {
    /// The settings in the order of their declaration, with nested sections last.
    fn settings() -> Vec<Setting>;

    /// Reads and checks the settings.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`].
    fn read(given: &Given<'_>) -> Result<Self, ConfigError>;
}

/// Declares a struct of settings, each with its type and its default.
///
/// ```text
/// section! {
///     /// What the struct is.
///     pub(crate) struct PoolSettings in "gateway.pool" {
///         /// What the setting does, for the file, for docs/operating.md and for rustdoc.
///         pub(crate) connections_max: Count = 100,
///     }
///     nested {
///         pub(crate) retries: RetrySettings,
///     }
///     check PoolSettings::check
/// }
/// ```
///
/// This declares the key `gateway.pool.connections_max` and the variable
/// `BURSAR_GATEWAY_POOL_CONNECTIONS_MAX`. A default is written as in the file; that of an optional
/// setting is `""`. A type states its bounds (`Whole<1, 600>`). `in`, `nested` and `check`
/// (`fn(&Self, &Given<'_>) -> Result<(), ConfigError>`, for rules about several settings) are
/// optional.
macro_rules! section {
    (@setting [$prefix:expr, $field:ident, $Value:ty, $default:tt, $($help:literal)+]) => {
        $crate::config::setting::Setting {
            key: concat!($prefix, stringify!($field)),
            default: stringify!($default),
            about: concat!($($help),+),
            is_secret: <$Value as $crate::config::setting::SettingValue>::IS_SECRET,
            bounds: <$Value as $crate::config::setting::SettingValue>::BOUNDS,
            shown: <$Value as $crate::config::setting::SettingValue>::shown,
        }
    };
    (@section [$prefix:expr]
        $(#[doc = $doc:literal])*
        $visibility:vis struct $Section:ident {
            $($(#[doc = $help:literal])+ $access:vis $field:ident: $Value:ty = $default:tt,)*
        }
        $(nested { $($(#[doc = $about:literal])* $nested_access:vis $inner:ident: $Inner:ty,)* })?
        $(check $check:path)?
    ) => {
        $(#[doc = $doc])*
        $visibility struct $Section {
            $($(#[doc = $help])+ $access $field: $Value,)*
            $($($(#[doc = $about])* $nested_access $inner: $Inner,)*)?
        }

        impl $crate::config::section::Section for $Section {
            fn settings() -> Vec<$crate::config::setting::Setting> {
                [
                    vec![$(section!(@setting [$prefix, $field, $Value, $default, $($help)+]),)*],
                    $($(<$Inner as $crate::config::section::Section>::settings(),)*)?
                ]
                .concat()
            }

            fn read(
                given: &$crate::config::given::Given<'_>,
            ) -> Result<Self, $crate::config::error::ConfigError> {
                let section = Self {
                    $($field: given.read(&section!(
                        @setting [$prefix, $field, $Value, $default, $($help)+]
                    ))?,)*
                    $($($inner: <$Inner as $crate::config::section::Section>::read(given)?,)*)?
                };
                $($check(&section, given)?;)?
                Ok(section)
            }
        }
    };
    ($(#[doc = $doc:literal])* $visibility:vis struct $Section:ident in $table:literal $($rest:tt)+) => {
        section!(@section [concat!($table, ".")]
            $(#[doc = $doc])* $visibility struct $Section $($rest)+
        );
    };
    ($(#[doc = $doc:literal])* $visibility:vis struct $Section:ident $($rest:tt)+) => {
        section!(@section [""] $(#[doc = $doc])* $visibility struct $Section $($rest)+);
    };
}

pub(crate) use section;
