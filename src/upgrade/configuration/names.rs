//! Settings by which a cluster of Debian's names itself: pg_createcluster(1) writes them.

use std::path::Path;

use crate::upgrade::records::Upgrade;

/// What the server writes beside its data, with the cluster's version and name in it.
const CALLED: [&str; 6] = [
    "cluster_name",
    "external_pid_file",
    "log_directory",
    "log_filename",
    "stats_temp_directory",
    "syslog_ident",
];

/// Files that the server reads.
const FILES: [&str; 9] = [
    "hba_file",
    "ident_file",
    "krb_server_keyfile",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_crl_dir",
    "ssl_crl_file",
    "ssl_dh_params_file",
    "ssl_key_file",
];

/// What becomes of them in an upgrade. A cluster that keeps its directory keeps its names.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a>(Option<&'a Upgrade>);

impl<'a> Names<'a> {
    /// Those of a new cluster.
    pub fn of(upgrade: &'a Upgrade) -> Self {
        Self(Some(upgrade))
    }

    /// As they are.
    pub fn same() -> Self {
        Self(None)
    }

    /// The value of a setting in the new cluster, if it is another one.
    pub(super) fn renamed(self, name: &str, value: &str) -> Option<String> {
        let upgrade = self.0?;
        let registered = upgrade.registered.as_ref()?;
        let name = name.to_ascii_lowercase();
        if name == "data_directory" {
            return Some(registered.data_directory.display().to_string());
        }
        let mut text = value.to_owned();
        if FILES.contains(&name.as_str()) {
            let moves = [
                (&registered.old_configuration, &registered.configuration),
                (&upgrade.data_directory, &registered.data_directory),
            ];
            let moved = moves.iter().find_map(|(from, to)| {
                let (scheme, path) = value.strip_prefix("FILE:").map_or(("", value), |path| ("FILE:", path));
                let inside = Path::new(path).strip_prefix(from).ok()?;
                Some(format!("{scheme}{}", to.join(inside).display()))
            });
            text = moved?;
        } else if CALLED.contains(&name.as_str()) {
            for between in ["-", "/"] {
                let called = |major| format!("{major}{between}{}", registered.name);
                text = text.replace(&called(upgrade.from), &called(upgrade.to));
            }
        }
        (text != value).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::records::registered::tests::registered;

    #[test]
    fn what_names_the_cluster_names_the_new_one_and_all_else_stays() {
        let upgrade = registered();
        let renamed = |name, value| Names::of(&upgrade).renamed(name, value);
        for (name, value, new) in [
            ("Data_directory", "/var/lib/postgresql/15/main", "/var/lib/postgresql/17/main"),
            ("hba_file", "/etc/postgresql/15/main/pg_hba.conf", "/etc/postgresql/17/main/pg_hba.conf"),
            ("ssl_key_file", "/var/lib/postgresql/15/main/tls/key", "/var/lib/postgresql/17/main/tls/key"),
            ("krb_server_keyfile", "FILE:/etc/postgresql/15/main/k", "FILE:/etc/postgresql/17/main/k"),
            ("external_pid_file", "/var/run/postgresql/15-main.pid", "/var/run/postgresql/17-main.pid"),
            ("cluster_name", "15/main", "17/main"),
        ] {
            assert_eq!(renamed(name, value).as_deref(), Some(new), "{name}");
        }
        for (name, value) in [
            ("ssl_cert_file", "/etc/ssl/certs/ssl-cert-snakeoil.pem"),
            ("ssl_cert_file", "server.crt"),
            ("hba_file", "/etc/postgresql/15/main2/pg_hba.conf"),
            ("cluster_name", "homeserver"),
            ("archive_command", "cp %p /srv/15/main/%f"),
        ] {
            assert_eq!(renamed(name, value), None, "{name}");
        }
        assert_eq!(Names::same().renamed("data_directory", "/d"), None);
    }
}
