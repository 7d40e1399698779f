//! The effective configuration as `keyway check` prints it: every key with the value in force,
//! in the shape of the file, and no secret.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::{ClientAuth, Config, CrossSlot, DrainMode, LogFormat, TlsVersion, Unauthenticated};

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[listen]")?;
        self.write_listen(f)?;
        if self.clusters.is_empty() {
            section(f, "cluster")?;
            self.write_cluster(f)?;
        }
        self.write_reads(f)?;
        self.write_hot_keys(f)?;
        self.write_users(f)?;
        self.write_admin_commands(f)?;
        self.write_limits(f)?;
        self.autoscale.write(f)?;
        section(f, "reload")?;
        writeln!(f, "watch = {}", self.reload.watch)?;
        millis(f, "every_ms", self.reload.every)?;
        section(f, "drain")?;
        let mode = match self.drain.mode {
            DrainMode::Deployment => "deployment",
            DrainMode::Sidecar => "sidecar",
        };
        text(f, "mode", mode)?;
        millis(f, "lame_duck_ms", self.drain.lame_duck)?;
        millis(f, "grace_ms", self.drain.grace)?;
        section(f, "admin")?;
        text(f, "address", self.admin.address)?;
        writeln!(f, "show_keys = {}", self.admin.show_keys)?;
        section(f, "log")?;
        text(f, "level", self.log.level.as_str().to_lowercase())?;
        let format = match self.log.format {
            LogFormat::Auto => "auto",
            LogFormat::Human => "human",
            LogFormat::Json => "json",
        };
        text(f, "format", format)?;
        writeln!(f, "slow_ms = {}", self.log.slow.as_millis())?;
        write!(f, "access_one_in = {}", self.log.access_one_in)?;
        if let Some(file) = &self.log.access_file {
            write!(f, "\naccess_file = {:?}", file.display().to_string())?;
        }
        writeln!(f)?;
        self.traces.write(f)?;
        self.clusters.iter().try_for_each(|own| own.write_tenant(f))
    }
}

impl Config {
    /// One of several clusters, with what it inherits.
    fn write_tenant(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(tenant) = &self.tenant else {
            return Ok(());
        };
        write!(f, "\n\n[[cluster]]\nname = \"{}\"\n", tenant.name)?;
        writeln!(f, "server_names = {:?}", tenant.server_names)?;
        writeln!(f, "user_names = {:?}", tenant.user_names)?;
        writeln!(f, "default = {}", tenant.default)?;
        self.write_cluster(f)?;
        section(f, "cluster.listen")?;
        self.write_listen(f)?;
        self.write_reads(f)?;
        self.write_users(f)?;
        self.write_limits(f)
    }

    /// A section's name: one of several clusters has its own.
    fn own(&self, section: &str) -> String {
        match self.tenant {
            Some(_) => format!("cluster.{section}"),
            None => section.to_owned(),
        }
    }

    fn write_listen(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own_port = self.tenant.as_ref().is_none_or(|tenant| tenant.own_port);
        if own_port {
            text(f, "address", self.listen.address)?;
        } else {
            writeln!(f, "# address: that of [listen]")?;
        }
        match &self.listen.advertise {
            Some(advertise) => text(f, "advertise", advertise)?,
            None => writeln!(f, "# advertise: the address that the client used")?,
        }
        if self.tenant.is_none() {
            writeln!(f, "workers = {}", self.listen.workers)?;
            writeln!(f, "reuse_port = {}", self.listen.reuse_port)?;
        }
        section(f, &self.own("listen.tls"))?;
        let tls = &self.listen.tls;
        path(f, "certificate", &tls.certificate)?;
        path(f, "key", &tls.key)?;
        let (ca, auth) = match &tls.clients {
            ClientAuth::None => (None, "none"),
            ClientAuth::Optional(ca) => (Some(ca), "optional"),
            ClientAuth::Required(ca) => (Some(ca), "required"),
        };
        if let Some(ca) = ca {
            path(f, "client_ca", ca)?;
        }
        text(f, "client_auth", auth)?;
        if let Some(crl) = &tls.client_crl {
            path(f, "client_crl", crl)?;
        }
        let version = match tls.min_version {
            TlsVersion::V1_2 => "1.2",
            TlsVersion::V1_3 => "1.3",
        };
        text(f, "min_version", version)?;
        for named in &tls.certificates {
            writeln!(f, "\n[[{}]]", self.own("listen.tls.certificates"))?;
            path(f, "certificate", &named.certificate)?;
            path(f, "key", &named.key)?;
        }
        Ok(())
    }

    fn write_cluster(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seeds: Vec<_> = self
            .cluster
            .seeds
            .iter()
            .map(|seed| format!("\"{seed}\""))
            .collect();
        writeln!(f, "seeds = [{}]", seeds.join(", "))?;
        let servers = self.cluster.name_servers.iter();
        let servers: Vec<_> = servers.map(|server| format!("\"{server}\"")).collect();
        if !servers.is_empty() {
            writeln!(f, "name_servers = [{}]", servers.join(", "))?;
        }
        match &self.cluster.credentials {
            Some(credentials) => {
                text(f, "username", &credentials.username)?;
                writeln!(f, "# password: from {}", credentials.source)?;
            }
            None => writeln!(f, "# no user and password")?,
        }
        let unauthenticated = match self.cluster.unauthenticated {
            Unauthenticated::Default => "default",
            Unauthenticated::Service => "service",
        };
        text(f, "unauthenticated", unauthenticated)?;
        let cross_slot = match self.cluster.cross_slot {
            CrossSlot::Split => "split",
            CrossSlot::SplitTransactions => "split_transactions",
            CrossSlot::Refuse => "refuse",
        };
        text(f, "cross_slot", cross_slot)?;
        let Some(tls) = &self.cluster.tls else {
            return writeln!(f, "# no [cluster.tls]: plain TCP to the nodes");
        };
        section(f, "cluster.tls")?;
        path(f, "ca", &tls.ca)?;
        match &tls.server_name {
            Some(name) => text(f, "server_name", name)?,
            None => writeln!(f, "# server_name: each node's own host")?,
        }
        if let Some(identity) = &tls.identity {
            path(f, "certificate", &identity.certificate)?;
            path(f, "key", &identity.key)?;
        }
        Ok(())
    }

    fn write_reads(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reads = &self.reads;
        section(f, &self.own("reads"))?;
        let shared = (self.tenant.as_ref()).is_some_and(|tenant| !tenant.own_read_port);
        match reads.address {
            Some(_) if shared => writeln!(f, "# address: that of [reads]")?,
            Some(address) => text(f, "address", address)?,
            None => writeln!(f, "# no address: no read port")?,
        }
        if let Some(advertise) = reads.advertise.as_ref().filter(|_| !shared) {
            text(f, "advertise", advertise)?;
        }
        match &reads.zone {
            Some(zone) => text(f, "zone", zone)?,
            None => writeln!(f, "# zone: not known")?,
        }
        let zones: Vec<_> = reads
            .zones
            .iter()
            .map(|of| format!("\"{}/{}\" = {:?}", of.address, of.bits, of.zone))
            .collect();
        writeln!(f, "zones = {{ {} }}", zones.join(", "))?;
        millis(f, "max_lag_ms", reads.max_lag)?;
        writeln!(f, "readonly_flag = {}", reads.readonly_flag)
    }

    fn write_hot_keys(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        section(f, "hot_keys")?;
        writeln!(f, "coalesce = {}", self.hot_keys.coalesce)?;
        writeln!(f, "near_prefixes = {:?}", self.hot_keys.near_prefixes)?;
        writeln!(f, "near_ops_min = {}", self.hot_keys.near_ops_min)?;
        writeln!(f, "near_bytes_max = {}", self.hot_keys.near_bytes_max)
    }

    fn write_users(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for user in &self.users {
            section(f, &self.own(&format!("users.{}", user.name)))?;
            if user.password.is_some() {
                writeln!(f, "# it has a password")?;
            }
            if let Some(certificate) = &user.certificate {
                text(f, "certificate", certificate)?;
            }
            text(f, "cluster_username", &user.runs_as.username)?;
            writeln!(f, "# password on the cluster: from {}", user.runs_as.source)?;
        }
        Ok(())
    }

    fn write_admin_commands(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        section(f, "admin_commands")?;
        let quoted: Vec<_> = self
            .admin_commands
            .iter()
            .map(|name| format!("{name:?}"))
            .collect();
        writeln!(f, "allow = [{}]", quoted.join(", "))
    }

    fn write_limits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = &self.limits;
        section(f, &self.own("limits"))?;
        writeln!(f, "clients_max = {}", limits.clients_max)?;
        if self.tenant.is_none() {
            millis(f, "handshake_timeout_ms", limits.handshake_timeout)?;
            writeln!(f, "handshakes_max = {}", limits.handshakes_max)?;
            let per_address = limits.clients_per_address_max.unwrap_or_default();
            writeln!(f, "clients_per_address_max = {per_address}")?;
        }
        millis(f, "auth_timeout_ms", limits.auth_timeout)?;
        millis(f, "request_timeout_ms", limits.request_timeout)?;
        millis(f, "deadline_ms", limits.deadline)?;
        millis(f, "reply_timeout_ms", limits.reply_timeout)?;
        writeln!(
            f,
            "client_output_bytes_max = {}",
            limits.client_output_bytes_max
        )?;
        writeln!(f, "in_flight_max = {}", limits.in_flight_max)?;
        writeln!(f, "leases_max = {}", limits.leases_max)?;
        writeln!(f, "request_bytes_max = {}", limits.request_bytes_max)?;
        let per_user = limits.clients_per_user_max.unwrap_or_default();
        writeln!(f, "clients_per_user_max = {per_user}")?;
        let commands = limits.user_commands_per_second_max.unwrap_or_default();
        writeln!(f, "user_commands_per_second_max = {commands}")?;
        let bytes = limits.user_bytes_per_second_max.unwrap_or_default();
        writeln!(f, "user_bytes_per_second_max = {bytes}")?;
        let commands = limits.commands_per_second_max.unwrap_or_default();
        writeln!(f, "commands_per_second_max = {commands}")?;
        let bytes = limits.bytes_per_second_max.unwrap_or_default();
        writeln!(f, "bytes_per_second_max = {bytes}")?;
        millis(
            f,
            "idle_timeout_ms",
            limits.idle_timeout.unwrap_or_default(),
        )?;
        let age = limits.max_connection_age.unwrap_or_default();
        millis(f, "max_connection_age_ms", age)?;
        if self
            .tenant
            .as_ref()
            .is_some_and(|tenant| tenant.shares_memory)
        {
            return writeln!(f, "# memory_bytes_max: its share of that of [limits]");
        }
        let memory = limits.memory_bytes_max.unwrap_or_default();
        writeln!(f, "memory_bytes_max = {memory}")
    }
}

fn section(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    writeln!(f, "\n[{name}]")
}

fn text(f: &mut fmt::Formatter<'_>, key: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{key} = \"{value}\"")
}

fn path(f: &mut fmt::Formatter<'_>, key: &str, value: &Path) -> fmt::Result {
    // `Debug` of a path quotes and escapes it, which is TOML's basic string for all but odd bytes.
    writeln!(f, "{key} = {value:?}")
}

fn millis(f: &mut fmt::Formatter<'_>, key: &str, value: Duration) -> fmt::Result {
    writeln!(f, "{key} = {}", value.as_millis())
}
