//! The file of tenants, as people write it:
//!
//! ```toml
//! [[tenant]]
//! name = "research"
//! role = "writer"                                 # reader, writer or admin
//! tokens = ["sha256:…"]                           # of tokens that `megaring tenant add` has shown
//! blocked_recipients = ["mallory"]                # whom it may not reserve an amount for
//! rates = { search = "100:20" }                   # a hundred searches a second, twenty at once
//!
//! [tenant.budget]                                 # what is left out has no limit
//! unit = "nanoseconds"                            # of compute; or "micros" of a currency, by `prices`
//! call = 1_000_000_000
//! session = 60_000_000_000
//! day = 3_600_000_000_000
//! ```
//!
//! With `unit = "micros"`, `prices = { query = 20, batch = 900 }` says what a job of each cost takes.

use std::collections::BTreeMap;
use std::path::Path;

use megaring_budget::Limits;
use megaring_core::Error;
use megaring_core::gate::{COUNTERS, Cost, Role};
use megaring_simd::gate::Rate;
use serde::{Deserialize, Deserializer};

use super::token::TokenHash;
use crate::validate::MAX_TENANT_BYTES;

/// A tenant as the file has it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// 1 to 128 bytes of printable ASCII.
    pub name: String,
    /// What it may do.
    #[serde(deserialize_with = "parsed")]
    pub role: Role,
    /// Hashes of its tokens, any of which shows who it is.
    #[serde(default, deserialize_with = "all_parsed")]
    pub tokens: Vec<TokenHash>,
    /// Recipients for whom it cannot reserve an amount.
    #[serde(default)]
    pub blocked_recipients: Vec<String>,
    /// How often it may call, by the counters of the table of calls.
    #[serde(default, deserialize_with = "values_parsed")]
    pub rates: BTreeMap<String, Rate>,
    /// What it may spend.
    pub budget: Option<Budget>,
}

/// What a tenant may spend, in its unit.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// What is counted.
    pub unit: Unit,
    call: Option<u64>,
    session: Option<u64>,
    day: Option<u64>,
    #[serde(default)]
    prices: BTreeMap<String, u64>,
}

/// What a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Nanoseconds of compute: what is predicted is reserved, what it took is charged.
    Nanoseconds,
    /// Millionths of a currency's unit: the price of a job's cost.
    Micros,
}

impl Unit {
    /// Its name in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "nanoseconds",
            Self::Micros => "micros",
        }
    }
}

impl Budget {
    /// The limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let limit = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        Limits { call: limit(self.call), session: limit(self.session), day: limit(self.day) }
    }

    /// What a job of this cost takes; `None` where nanoseconds are counted.
    #[must_use]
    pub fn price(&self, cost: Cost) -> Option<u64> {
        (self.unit == Unit::Micros).then(|| self.prices.get(cost.name()).copied().unwrap_or(0))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tenant: Vec<Row>,
}

/// Reads a file of tenants.
///
/// # Errors
/// [`Error::Invalid`] that names the file, the tenant, and what is wrong.
pub fn read(path: &Path) -> Result<Vec<Row>, Error> {
    let wrong = |reason: String| Error::field("tenants", format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    parse(&text).map_err(wrong)
}

/// The tenants of a text.
///
/// # Errors
/// What is wrong, in words.
pub fn parse(text: &str) -> Result<Vec<Row>, String> {
    let File { tenant: rows } = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
    for (at, row) in rows.iter().enumerate() {
        check(row, &rows[..at]).map_err(|reason| format!("tenant {:?}: {reason}", row.name))?;
    }
    if rows.is_empty() { Err("it has no [[tenant]], and would let in nobody".into()) } else { Ok(rows) }
}

/// Whether a tenant can stand behind those before it.
fn check(row: &Row, before: &[Row]) -> Result<(), String> {
    check_name(&row.name)?;
    if before.iter().any(|other| other.name == row.name) {
        return Err("there are two of that name".into());
    }
    let mut others = before.iter().flat_map(|other| other.tokens.iter().map(move |token| (&other.name, token)));
    if let Some((owner, token)) = others.find(|(_, token)| row.tokens.contains(token)) {
        return Err(format!("the token {token} is {owner:?}'s already"));
    }
    if let Some(unknown) = row.rates.keys().find(|name| !COUNTERS.contains(&name.as_str())) {
        return Err(format!("rates: no calls are counted as {unknown:?}; there are {}", COUNTERS.join(", ")));
    }
    let Some(budget) = &row.budget else { return Ok(()) };
    if let Some(unknown) = budget.prices.keys().find(|name| name.parse::<Cost>().is_err()) {
        let known: Vec<&str> = Cost::ALL.iter().map(|cost| cost.name()).collect();
        return Err(format!("prices: {unknown:?} is no cost; there are {}", known.join(", ")));
    }
    if budget.unit == Unit::Nanoseconds && !budget.prices.is_empty() {
        return Err("prices are of a budget whose unit is \"micros\"".into());
    }
    Ok(())
}

/// Whether a tenant can have this name.
///
/// # Errors
/// What is wrong, in words.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_printable = name.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if (1..=MAX_TENANT_BYTES).contains(&name.len()) && is_printable {
        return Ok(());
    }
    Err(format!("a name has 1 to {MAX_TENANT_BYTES} bytes of printable ASCII"))
}

/// The text of a file with a further token for a tenant, and with that tenant where it is not there yet, then in this
/// role. Whatever else stands in the text stays as it is.
///
/// # Errors
/// A text that is no file of tenants, and a name that no tenant can have, in words.
pub fn with_token(text: &str, name: &str, role: Role, token: TokenHash) -> Result<String, String> {
    check_name(name)?;
    if !text.trim().is_empty() {
        parse(text)?;
    }
    let mut file: toml_edit::DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    let tenants = file.entry("tenant").or_insert(toml_edit::Item::ArrayOfTables(toml_edit::ArrayOfTables::new()));
    let inline = "tenants are tables of their own here, [[tenant]]";
    let tenants = tenants.as_array_of_tables_mut().ok_or(inline)?;
    let is_named = |table: &toml_edit::Table| table.get("name").and_then(|item| item.as_str()) == Some(name);
    let known = tenants.iter().position(is_named);
    match known.and_then(|place| tenants.get_mut(place)) {
        Some(table) => {
            let tokens = table.entry("tokens").or_insert(toml_edit::value(toml_edit::Array::new()));
            tokens.as_array_mut().ok_or("tokens is no array")?.push(token.to_string());
        }
        None => {
            let mut table = toml_edit::Table::new();
            table["name"] = toml_edit::value(name);
            table["role"] = toml_edit::value(role.name());
            table["tokens"] = toml_edit::value(toml_edit::Array::from_iter([token.to_string()]));
            tenants.push(table);
        }
    }
    let text = file.to_string();
    parse(&text).map(|_| text)
}

/// A word of the registry, or another text with a form.
fn parsed<'de, D: Deserializer<'de>, T: std::str::FromStr<Err = String>>(input: D) -> Result<T, D::Error> {
    String::deserialize(input)?.parse().map_err(serde::de::Error::custom)
}

fn all_parsed<'de, D: Deserializer<'de>, T: std::str::FromStr<Err = String>>(input: D) -> Result<Vec<T>, D::Error> {
    let texts = Vec::<String>::deserialize(input)?;
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

fn values_parsed<'de, D, T>(input: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err = String>,
{
    let texts = BTreeMap::<String, String>::deserialize(input)?;
    let parse = |(name, text): (String, String)| text.parse().map(|value| (name, value));
    texts.into_iter().map(|pair| parse(pair).map_err(serde::de::Error::custom)).collect()
}
