//! What there is of a server in a container, and what its unit is to run afterwards.

use std::path::{Path, PathBuf};

use super::cluster::Cluster;
use super::tried::Obstacle;
use crate::account::Account;
use crate::config::{ServerKind, Settings};
use crate::error::{Error, IoContext as _, Kind, Result};
use crate::files::beneath;
use crate::place::image::{self, Run};
use crate::place::{self, SETUP};
use crate::postgres::{Database, HOME, Major, Session};
use crate::runtime::{self, Call, Engine, Runtime, output};
use crate::systemd::Manager;
use crate::upgrade::configuration::{self, Home};
use crate::upgrade::records::Container;

/// A unit's file is no longer than that.
const MODEST: u64 = 1 << 16;

/// What it is, and will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containment {
    /// What the upgrade must know of it.
    pub container: Container,
    /// Its drop-in.
    pub drop_in: PathBuf,
    /// What stands in the way of its upgrade, whatever the method.
    pub obstacles: Vec<Obstacle>,
}

/// Who its user is in it: the lines of `/etc/passwd` as the server sees them.
const USERS: &str = "SELECT pg_catalog.to_json(pg_catalog.pg_read_file('/etc/passwd'));";

/// Indexes, and tables that are divided by ranges, in an order that is a C library's or ICU's. Of `C`, `POSIX` and what PostgreSQL
/// has itself, the order is the same everywhere.
const SORTED: &str = "SELECT coalesce(pg_catalog.json_agg(pg_catalog.format('%I.%I', nspname, relname) ORDER BY nspname, relname), '[]')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
    LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid LEFT JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = c.oid
    WHERE relkind IN ('i', 'I', 'p') AND nspname !~ '^pg_' AND nspname <> 'information_schema'
    AND EXISTS (SELECT FROM pg_catalog.unnest(coalesce(indcollation, partcollation)) AS used (collation_oid)
        JOIN pg_catalog.pg_collation co ON co.oid = collation_oid
        WHERE CASE collprovider WHEN 'd' THEN (SELECT DEFAULT_IS_SORTED FROM pg_catalog.pg_database
                WHERE datname = pg_catalog.current_database())
            WHEN 'b' THEN false WHEN 'i' THEN true ELSE collcollate !~* '^(c|posix)($|\\.)' END);";

/// Whether the default order of a database is one of those. Before 15 it was always the C library's.
fn default_is_sorted(version: u32) -> &'static str {
    match version >= 150_000 {
        true => {
            "CASE datlocprovider WHEN 'b' THEN false WHEN 'i' THEN true ELSE datcollate !~* '^(c|posix)($|\\.)' END"
        }
        false => "datcollate !~* '^(c|posix)($|\\.)'",
    }
}

/// Looks at the container that the settings are of, if they are of one, for an upgrade to `to`. `owner` is that of the data
/// directory.
///
/// # Errors
/// If the server or docker cannot be asked.
pub(super) fn look(
    settings: &Settings,
    runtime: &dyn Runtime,
    cluster: Option<&Cluster>,
    to: Option<Major>,
    owner: Option<&Account>,
) -> Result<Option<Containment>> {
    let (Some(to), Some(owner)) = (to, owner) else { return Ok(None) };
    if settings.server.kind.map(|(kind, _)| kind) != Some(ServerKind::Container) {
        return Ok(None);
    }
    let server = &settings.server;
    let Some(found) = place::Container::find(Path::new("/"), &server.unit) else {
        let message = format!("the file of {} starts no container any more", server.unit);
        return Err(Error::new(Kind::Config, message).state("nothing was changed").hint(SETUP));
    };
    let mut obstacles = Obstacles(Vec::new());
    let run = next(settings, &found, to, owner, &mut obstacles)?;
    commands(&found, &run, &mut obstacles);
    let mut peer = owner.name.clone();
    if let Some(cluster) = cluster {
        let connection = settings.connection();
        let session = Session { runtime, major: to, connection: &connection };
        peer = known_as(&session, owner, &mut obstacles)?.unwrap_or(peer);
        locales(&session, &found, &run, (to, owner), &mut obstacles)?;
        configured(settings, runtime, cluster.server.major()?, owner, &mut obstacles)?;
        let sorted = SORTED.replace("DEFAULT_IS_SORTED", default_is_sorted(cluster.server.version_num));
        for Database { name, collate, .. } in &cluster.databases {
            let objects: Vec<String> = session.query(name, &sorted)?;
            obstacles.sorted(name, collate, &objects);
        }
    }
    Ok(Some(Containment {
        drop_in: image::drop_in_of(Path::new("/"), &server.unit),
        obstacles: obstacles.0,
        container: Container {
            name: found.name,
            old: found.run,
            new: run,
            peer,
            socket_directory: settings.socket_directory.clone(),
            port: server.port,
            owner: server.user.clone(),
            superuser: server.superuser.clone(),
            database: server.database.clone(),
        },
    }))
}

struct Obstacles(Vec<Obstacle>);

impl Obstacles {
    fn add(&mut self, message: String, hint: impl Into<String>) {
        self.0.push(Obstacle { message, hint: Some(hint.into()) });
    }

    /// The programs of the machine make the new cluster, and those of an image work with it: they must agree on every order.
    fn sorted(&mut self, database: &str, collation: &str, objects: &[String]) {
        if objects.is_empty() {
            return;
        }
        let (shown, more) =
            (objects.iter().take(3).cloned().collect::<Vec<_>>().join(", "), objects.len() > 3);
        self.add(
            format!(
                "database {database:?} (collation {collation}): indexes or partitions depend on a collation that the C library or ICU of an \
                 image may sort in another order than that of this machine: {shown}{}",
                if more { format!(" and {} more", objects.len() - 3) } else { String::new() }
            ),
            "only C, POSIX and C.UTF-8 have the same order everywhere; let the playbook do it: ansible-playbook setup.yml \
             --tags=upgrade-postgres",
        );
    }
}

/// What the unit is to run afterwards.
fn next(
    settings: &Settings,
    found: &place::Container,
    to: Major,
    owner: &Account,
    obstacles: &mut Obstacles,
) -> Result<Run> {
    let named = settings.upgrade.image.clone().or_else(|| image::of_version(&found.image, to));
    let Some(image) = named else {
        obstacles.add(
            format!("the image {} has no tag that tells which one has PostgreSQL {to}", found.image),
            "upgrade.image = \"NAME:TAG\" in /etc/matrix-postgres/config.toml",
        );
        return Ok(found.run.clone());
    };
    let Some(variables) = found.engine.variables_of(&image)? else {
        obstacles.add(
            format!("the image {image}, which {} is to run afterwards, is not on this machine", found.unit),
            format!("{} pull {image}; or set upgrade.image to another one", found.engine),
        );
        return Ok(Run { image, data: None });
    };
    let other = "set upgrade.image in /etc/matrix-postgres/config.toml to an image of that version";
    match version_of(found.engine, &image, to, owner) {
        Ok(major) if major == to => {}
        Ok(major) => obstacles.add(format!("the image {image} has PostgreSQL {major}, and not {to}"), other),
        Err(error) => {
            obstacles
                .add(format!("the programs of the image {image} cannot be run: {}", error.one_line()), other);
        }
    }
    // Images from 18 on look elsewhere for it.
    let looks = variables.iter().find_map(|variable| variable.strip_prefix("PGDATA=")).map(Path::new);
    let data = found.inside.clone().filter(|_| !found.is_inside_named);
    let data = data.filter(|inside| looks.is_some_and(|looks| looks != inside)).or(found.run.data.clone());
    Ok(Run { image, data })
}

/// A throw-away container of an image, without the server's network.
fn container_of(engine: Engine, image: &str, to: Major, owner: &Account) -> runtime::Container {
    let image = runtime::Image {
        engine,
        name: image.to_owned(),
        major: to,
        network: None,
        socket_directory: None,
        environment: None,
        user: owner.clone(),
    };
    runtime::Container::new(image, [])
}

fn version_of(engine: Engine, image: &str, to: Major, owner: &Account) -> Result<Major> {
    let container = container_of(engine, image, to, owner);
    let text =
        output(container.command(to, &Call::new("postgres", ["--version"]))?, "postgres --version", &[])?;
    let text = String::from_utf8_lossy(&text);
    Major::from_version_line(&text)
        .ok_or_else(|| Error::new(Kind::Program, format!("postgres --version says {:?}", text.trim())))
}

/// Whether its unit can be made to run another image, and is the one that runs.
fn commands(found: &place::Container, run: &Run, obstacles: &mut Obstacles) {
    let file = found.unit_file.display();
    let read = |path: &Path| {
        let text = beneath::read(path, MODEST).at("read", path)?;
        Ok::<_, Error>(String::from_utf8_lossy(&text).into_owned())
    };
    let by_hand = format!("name the image in {file} in a line of the form: ExecStart=… docker run … IMAGE …");
    for said in [run, &found.run] {
        match read(&found.unit_file).map(|text| image::drop_in(&text, &found.unit, said)) {
            Ok(Ok(_)) => {}
            Ok(Err(reason)) => {
                let message = format!("{file} cannot be made to run {}: {reason}", said.image);
                return obstacles.add(message, by_hand);
            }
            Err(error) => return obstacles.add(error.one_line(), by_hand),
        }
    }
    // Without systemd there is no upgrade.
    let Ok(manager) = Manager::connect() else { return };
    let ours = image::drop_in_of(Path::new("/"), &found.unit);
    for drop_in in
        manager.drop_ins(&found.unit).unwrap_or_default().iter().filter(|drop_in| **drop_in != ours)
    {
        if read(drop_in).map_or(true, |text| image::names_commands(&text, &found.unit)) {
            obstacles.add(
                format!("{} changes the commands of {}", drop_in.display(), found.unit),
                format!("move its commands to {file}"),
            );
        }
    }
}

/// Locales that files or the command of the server name. None is asked for where the system's are used.
const LOCALES: &str = "SELECT coalesce(pg_catalog.json_agg(pg_catalog.concat(name, '=', setting) ORDER BY name), '[]')
    FROM pg_catalog.pg_settings WHERE name IN ('lc_messages', 'lc_monetary', 'lc_numeric', 'lc_time') AND setting <> ''
    AND source IN ('configuration file', 'command line');";

/// The new server must know the locales that the old one's configuration names, or it does not start: the image may lack them.
fn locales(
    session: &Session<'_>,
    found: &place::Container,
    run: &Run,
    (to, owner): (Major, &Account),
    obstacles: &mut Obstacles,
) -> Result<()> {
    let settings: Vec<String> = session.query(HOME, LOCALES)?;
    // An image that is not there, or is another one, is an obstacle already.
    if settings.is_empty() || !obstacles.0.is_empty() {
        return Ok(());
    }
    let mut call =
        Call::new("postgres", ["-C", "data_directory", "-D", "/tmp", "-c", "config_file=/dev/null"]);
    for setting in &settings {
        call.arguments.extend(["-c".into(), setting.into()]);
    }
    let command = container_of(found.engine, &run.image, to, owner).command(to, &call)?;
    if let Err(error) = output(command, "postgres -C", &[]) {
        obstacles.add(
            format!(
                "the server of the image {} rejects one of {}: {}",
                run.image,
                settings.join(", "),
                error.one_line()
            ),
            "set it to C (ALTER SYSTEM SET lc_messages = 'C'), or set upgrade.image to an image that has the locale",
        );
    }
    Ok(())
}

/// The programs of the machine read the old cluster with the configuration that it has: what the server in the container takes, such as
/// a locale of its image, that of the machine may reject.
fn configured(
    settings: &Settings,
    runtime: &dyn Runtime,
    from: Major,
    owner: &Account,
    obstacles: &mut Obstacles,
) -> Result<()> {
    if !runtime.near_majors().contains(&from) {
        return Ok(());
    }
    let rejected = configuration::rejected(runtime, from, &Home::of(&settings.data_directory), owner)?;
    if !rejected.is_empty() {
        let is_locale = rejected.iter().any(|said| said.contains("parameter \"lc_"));
        obstacles.add(
            format!(
                "PostgreSQL {from} of this machine does not start with the configuration of the server: {}",
                rejected.join("; ")
            ),
            match is_locale {
                true => "install the locale on this machine: apt-get install locales-all",
                false => "correct the setting in postgresql.conf, or ALTER SYSTEM RESET it",
            },
        );
    }
    Ok(())
}

/// What the server takes the owner of its directory for who logs in through the socket; nothing if it does not know him.
fn known_as(session: &Session<'_>, owner: &Account, obstacles: &mut Obstacles) -> Result<Option<String>> {
    let users: String = match session.query(HOME, USERS) {
        Err(error) if error.kind() == Kind::Server => {
            obstacles.add(
                format!(
                    "the users that the server in the container knows cannot be read: {}",
                    error.one_line()
                ),
                "set server.superuser in /etc/matrix-postgres/config.toml to a superuser",
            );
            return Ok(None);
        }
        read => read?,
    };
    let name = name_of(owner.uid.as_raw(), &users).map(str::to_owned);
    if name.is_none() {
        obstacles.add(
            format!("the server in the container knows no user with the number {}, who owns its directory", owner.uid),
            "mount the machine's list of users, as the playbook does: --mount type=bind,src=/etc/passwd,dst=/etc/passwd,ro",
        );
    }
    Ok(name)
}

/// passwd(5)
fn name_of(uid: u32, users: &str) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_known_by_his_number() {
        let users = "root:x:0:0:root:/root:/bin/bash\nmatrix:x:991:991::/matrix:/bin/sh\nbroken\n";
        assert_eq!((name_of(991, users), name_of(0, users)), (Some("matrix"), Some("root")));
        assert_eq!(name_of(999, users), None);
    }
}
