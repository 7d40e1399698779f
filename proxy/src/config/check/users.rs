//! `[users.NAME]` and `[admin_commands]`: whom Keyway knows itself, and what they may do.

use std::collections::{BTreeMap, BTreeSet};

use command::{CommandTable, NotAllowed};

use super::values::{Checker, read_password};
use crate::config::{ClientAuth, Credentials, MappedUser, Secret, typed};

/// Users at most: more belong into the cluster's own ACL.
const USERS_MAX: usize = 10_000;
/// Commands that are allowed one by one, at most.
const ALLOWED_MAX: usize = 1000;

impl Checker<'_> {
    pub(super) fn users(
        &mut self,
        typed: BTreeMap<String, typed::User>,
        clients: Option<&ClientAuth>,
    ) -> Vec<MappedUser> {
        if typed.len() > USERS_MAX {
            self.wrong("users", format!("{} users; 0 to {USERS_MAX}", typed.len()));
            return Vec::new();
        }
        let mut certificates = BTreeSet::new();
        let mut users = Vec::new();
        for (name, entry) in typed {
            let key = format!("users.{name}");
            if let Some(certificate) = &entry.certificate {
                let wrong = if certificate.is_empty() {
                    Some("empty; give a name that is in the client's certificate")
                } else if matches!(clients, Some(ClientAuth::None)) {
                    Some("needs [listen.tls] client_ca: who vouches for the certificate?")
                } else if !certificates.insert(certificate.clone()) {
                    Some("names another user already")
                } else {
                    None
                };
                if let Some(wrong) = wrong {
                    self.wrong(&format!("{key}.certificate"), wrong);
                }
            }
            users.extend(self.user(&key, name, entry));
        }
        users
    }

    fn user(&mut self, key: &str, name: String, entry: typed::User) -> Option<MappedUser> {
        if name.is_empty() || name.contains(char::is_whitespace) {
            self.wrong(key, "a user name has no spaces and is not empty");
            return None;
        }
        let own = [entry.password_file, entry.password_env];
        let password = self.secret([key, "password"], own).ok()?;
        if password.is_none() && entry.certificate.is_none() {
            let message = "needs password_file, password_env or certificate: how does a client \
                           show that it is this user?";
            self.wrong(key, message);
            return None;
        }
        let theirs = [entry.cluster_password_file, entry.cluster_password_env];
        let upstream = self.secret([key, "cluster_password"], theirs).ok()?;
        let Some((upstream, source)) = upstream.or_else(|| password.clone()) else {
            let message = "needs cluster_password_file or cluster_password_env: a certificate \
                           opens no connection to the cluster";
            self.wrong(key, message);
            return None;
        };
        Some(MappedUser {
            runs_as: Credentials {
                username: entry.cluster_username.unwrap_or(name.clone()).into(),
                password: upstream,
                source,
            },
            name: name.into(),
            password: password.map(|(password, _)| password),
            certificate: entry.certificate.map(Into::into),
        })
    }

    /// A password from `file` or from an environment variable, and where it was found. `Err(())`:
    /// something is wrong, and was noted.
    pub(super) fn secret(
        &mut self,
        [section, what]: [&str; 2],
        [file, variable]: [Option<String>; 2],
    ) -> Result<Option<(Secret, Box<str>)>, ()> {
        let (file_key, variable_key) = (
            format!("{section}.{what}_file"),
            format!("{section}.{what}_env"),
        );
        match (file, variable) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                let message =
                    format!("{what}_file and {what}_env contradict; leave out one of them");
                self.wrong(&variable_key, message);
                Err(())
            }
            (Some(file), None) => {
                let path = self.path(&file_key, &file).ok_or(())?;
                let read = read_password(&path).map_err(|reason| {
                    let message = format!("cannot use {}: {reason}", path.display());
                    self.wrong(&file_key, message);
                })?;
                Ok(Some((read, format!("file {}", path.display()).into())))
            }
            (None, Some(name)) => {
                let value = (self.environment)(&name).filter(|value| !value.is_empty());
                let Some(value) = value else {
                    let message = format!("the environment variable {name} is not set or empty");
                    self.wrong(&variable_key, message);
                    return Err(());
                };
                let source = format!("environment variable {name}");
                let secret = Secret::new(value.into_encoded_bytes());
                Ok(Some((secret, source.into())))
            }
        }
    }

    /// Names that the built-in table knows must be of commands that can be allowed; others may be
    /// the cluster's own.
    pub(super) fn admin_commands(&mut self, typed: typed::AdminCommands) -> Vec<Box<str>> {
        const KEY: &str = "admin_commands.allow";
        let names = typed.allow.unwrap_or_default();
        if names.len() > ALLOWED_MAX {
            self.wrong(KEY, format!("{} names; 0 to {ALLOWED_MAX}", names.len()));
            return Vec::new();
        }
        let mut table = CommandTable::builtin().clone();
        let mut again = BTreeSet::new();
        for name in &names {
            let wrong = match table.allow(name) {
                _ if !again.insert(name) => Some("is named twice".to_owned()),
                Ok(()) => None,
                Err(NotAllowed::Unknown) if !name.trim().is_empty() => None,
                Err(why) => Some(why.to_string()),
            };
            if let Some(wrong) = wrong {
                self.wrong(KEY, format!("\"{name}\": {wrong}"));
            }
        }
        names.into_iter().map(Into::into).collect()
    }
}
