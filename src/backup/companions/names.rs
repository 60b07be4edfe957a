//! What the configurations of a homeserver and of its authentication service name. Pure.

use std::path::{Component, Path, PathBuf};

use crate::yaml;

/// Where configurations are: Debian's package, the playbook's, and the Matrix Authentication Service's; and the unit of those that
/// are read in a container, where files have other paths.
pub(super) const CONFIGURATIONS: [(&str, Option<&str>); 5] = [
    ("etc/matrix-synapse/homeserver.yaml", None),
    ("matrix/synapse/config/homeserver.yaml", Some("matrix-synapse.service")),
    ("etc/matrix-authentication-service/config.yaml", None),
    ("etc/mas/config.yaml", None),
    (
        "matrix/matrix-authentication-service/config/config.yaml",
        Some("matrix-authentication-service.service"),
    ),
];

/// Keys of Synapse's for a file ("Configuring Synapse"), and of the Matrix Authentication Service's ("Configuration file
/// reference", `secrets`, `database`, `email`).
const FILES: [&str; 15] = [
    "signing_key_path",
    "log_config",
    "registration_shared_secret_path",
    "macaroon_secret_key_path",
    "form_secret_path",
    "worker_replication_secret_path",
    "turn_shared_secret_path",
    "recaptcha_private_key_path",
    "secret_path",
    "client_secret_path",
    "tls_certificate_path",
    "tls_private_key_path",
    "encryption_file",
    "key_file",
    "password_file",
];

/// Keys of lists of files: bridges' registrations.
const LISTS: [&str; 1] = ["app_service_config_files"];

/// What a configuration names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    /// Files that are small, and that nobody can make again.
    pub(super) files: Vec<PathBuf>,
    /// The directory of media.
    pub(super) media: Option<PathBuf>,
}

/// What the text of a configuration names, where `outside` says what a path in it is on this machine.
pub(super) fn named_by(text: &str, outside: &dyn Fn(&Path) -> PathBuf) -> Named {
    let of_keys = text.lines().filter_map(yaml::key).filter(|(key, _)| FILES.contains(key));
    let of_lists = LISTS.iter().flat_map(|list| yaml::items(text, list));
    let mut files = Vec::new();
    for value in of_keys.map(|(_, value)| value).chain(of_lists) {
        let path = whole(value).map(outside);
        files.extend(path.filter(|path| !files.contains(path)));
    }
    let mut media = text.lines().filter(|line| !yaml::is_indented(line)).filter_map(yaml::key);
    let media = media.rfind(|(key, _)| *key == "media_store_path");
    Named { files, media: media.and_then(|(_, value)| whole(value).map(outside)) }
}

/// A path that leads nowhere else.
fn whole(path: &str) -> Option<&Path> {
    let path = Path::new(path);
    let is_straight = path.components().all(|part| part != Component::ParentDir);
    (path.is_absolute() && is_straight).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOMESERVER: &str = "\
server_name: example.org
#signing_key_path: /no
signing_key_path: \"/data/example.org.signing.key\"
log_config: /data/../etc/shadow
macaroon_secret_key_path: relative
media_store_path: /matrix-media-store-parent/media-store
app_service_config_files:
  - /data/bridge.yaml
  - /data/bridge.yaml
oidc_providers:
  - idp_id: x
    client_secret_path: /etc/secret
";

    #[test]
    fn what_is_named_is_found_where_it_is_on_this_machine() {
        let outside = |path: &Path| match path.strip_prefix("/data") {
            Ok(rest) => Path::new("/matrix/synapse/config").join(rest),
            Err(_) => path.to_owned(),
        };
        let named = named_by(HOMESERVER, &outside);
        let expected = [
            "/matrix/synapse/config/example.org.signing.key",
            "/etc/secret",
            "/matrix/synapse/config/bridge.yaml",
        ];
        assert_eq!(named.files, expected.map(PathBuf::from));
        assert_eq!(named.media, Some("/matrix-media-store-parent/media-store".into()));
    }

    #[test]
    fn the_secrets_of_the_authentication_service_are_named() {
        let text = "secrets:\n  encryption_file: /etc/mas/encryption\n  keys:\n    - kid: a\n      key_file: /etc/mas/a.pem\n    \
                    - key_file: '/etc/mas/b.pem'\n  encryption: 00ff\n";
        let named = named_by(text, &Path::to_owned);
        let expected = ["/etc/mas/encryption", "/etc/mas/a.pem", "/etc/mas/b.pem"].map(PathBuf::from);
        assert_eq!((named.files.as_slice(), named.media), (expected.as_slice(), None));
        assert_eq!(named_by("", &Path::to_owned), Named::default());
    }
}
