//! Who asks and on what terms: the call's metadata.

use std::time::Duration;

use megaring_core::Error;
use tonic::codegen::http::HeaderValue;

/// The metadata key with the tenant's name.
pub const TENANT: &str = "megaring-tenant";
/// Longest name of a tenant or a session, in bytes.
pub const MAX_TENANT_BYTES: usize = 128;

/// A name that metadata give, if they do.
///
/// # Errors
/// [`Error::Invalid`] for a name that is too long or not printable ASCII.
pub fn printable<'a>(key: &str, value: Option<&'a HeaderValue>) -> Result<Option<&'a str>, Error> {
    match value.map(HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(name)) if name.len() <= MAX_TENANT_BYTES => Ok(Some(name)),
        Some(Ok(name)) => Err(Error::field(key, format!("{} bytes; {MAX_TENANT_BYTES} are legal", name.len()))),
        Some(Err(_)) => Err(Error::field(key, "the name must be printable ASCII")),
    }
}

/// The duration in a `grpc-timeout` header: one to eight digits and a unit (H, M, S, m, u, n).
///
/// # Errors
/// [`Error::Invalid`] for a text that is not of this form.
pub fn timeout(header: &str) -> Result<Duration, Error> {
    let malformed = || Error::field("grpc-timeout", "1 to 8 digits and one of the units H, M, S, m, u, n are legal");
    let unit = header.chars().last().ok_or_else(malformed)?;
    let digits = &header[..header.len() - unit.len_utf8()];
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed());
    }
    let count: u64 = digits.parse().map_err(|_| malformed())?;
    match unit {
        'H' => Ok(Duration::from_secs(count * 3600)),
        'M' => Ok(Duration::from_secs(count * 60)),
        'S' => Ok(Duration::from_secs(count)),
        'm' => Ok(Duration::from_millis(count)),
        'u' => Ok(Duration::from_micros(count)),
        'n' => Ok(Duration::from_nanos(count)),
        _ => Err(malformed()),
    }
}
