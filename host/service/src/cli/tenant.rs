//! `megaring tenant`: who may call a server. Tokens are shown once, when they are made; the file has their hashes.

use std::io::ErrorKind;
use std::path::Path;

use megaring_core::gate::Role;
use megaring_server::tenants::Token;
use megaring_server::tenants::file::{read, with_token};
use serde_json::json;

use crate::config::Settings;
use crate::console::{Failure, Output, counted, shown};

/// `megaring tenant`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum TenantCommand {
    /// Add a tenant, or a further token to one that is there, and show the token: the only time that it is seen
    Add(AddArgs),
    /// Those that there are
    List,
}

/// `tenant add`.
#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// Its name
    name: String,
    /// What a new one may do: reader, writer or admin
    #[arg(long, env = "MEGARING_TENANT_ADD_ROLE", value_name = "ROLE", default_value_t = Role::Reader)]
    role: Role,
}

pub(crate) fn run(command: TenantCommand, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let file = settings.tenants_file();
    match command {
        TenantCommand::Add(args) => add(&args, &file, output),
        TenantCommand::List => list(&file, output),
    }
}

fn add(AddArgs { name, role }: &AddArgs, file: &Path, output: &mut Output) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Work(format!("{}: {error}", shown(file)));
    let before = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        text => text.map_err(|error| failed(&error))?,
    };
    let token = Token::random()?;
    let after = with_token(&before, name, *role, token.hash()).map_err(|reason| failed(&reason))?;
    replace(file, &after).map_err(|error| failed(&error))?;
    let told = json!({ "tenant": name, "token": token.text(), "hash": token.hash().to_string(), "file": file.display().to_string() });
    output.answer(&told, || {
        format!(
            "{}\nkeep it: {} has its hash alone. It is sent as `authorization: Bearer TOKEN`, by megaring with \
             --token or MEGARING_TOKEN",
            token.text(),
            shown(file)
        )
    })
}

/// Puts a text in the place of a file, at once or not at all; only its owner may read a new one.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    // Made with access for its owner alone.
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()?;
    if let Ok(found) = std::fs::metadata(file) {
        new.as_file().set_permissions(found.permissions())?;
    }
    new.persist(file)?;
    Ok(())
}

fn list(file: &Path, output: &mut Output) -> Result<(), Failure> {
    if !file.exists() {
        let help = "`megaring tenant add NAME` makes one; until then every caller on this machine may do everything";
        return Err(Failure::Work(format!("there are no tenants in {}: {help}", shown(file))));
    }
    for tenant in read(file)? {
        let tokens: Vec<String> = tenant.tokens.iter().map(ToString::to_string).collect();
        let unit = tenant.budget.as_ref().map(|budget| budget.unit.name());
        let told = json!({ "tenant": tenant.name, "role": tenant.role.name(), "tokens": tokens, "budget": unit });
        output.answer(&told, || {
            let tokens = counted(tokens.len() as u64, "token", "tokens");
            let budget = unit.map_or_else(String::new, |unit| format!(", a budget in {unit}"));
            format!("{} ({}): {tokens}{budget}", tenant.name, tenant.role)
        })?;
    }
    output.flush()
}
