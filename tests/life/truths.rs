//! What is so after every step, and that both `status` verbs say so.

use serde_json::Value;

use super::facts::Facts;

/// What may be the matter with backups in a life: kills leave one that was not read back, and restores and ways back take
/// rows and databases away.
const KNOWN_PROBLEMS: [&str; 4] = [
    "has not been read back",
    "shrank by",
    "is not in the newest verified backup",
    "is not in the newest backup",
];

/// What a restore that was killed leaves; the next one removes it.
const OF_A_RESTORE: &str = "/var/tmp/matrix-postgres-restore/scratch-";

pub fn hold(before: &Facts, now: &Facts, has_restored: bool) -> Result<(), String> {
    let left = now.left.iter().filter(|path| has_restored || !path.starts_with(OF_A_RESTORE));
    let left: Vec<_> = left.map(String::as_str).collect();
    if !left.is_empty() {
        return Err(format!("something is left lying about\n{}", left.join("\n")));
    }
    upgrades(now)?;
    let newest = before.backups.iter().rev().find(|(_, backup)| backup.verified);
    if let Some((name, _)) = newest.filter(|(name, _)| !now.backups.contains_key(*name))
        && !now.backups.iter().any(|(other, backup)| backup.verified && other > name)
    {
        return Err(format!("the newest verified backup is gone\n{name}"));
    }
    backups(now)
}

fn upgrades(now: &Facts) -> Result<(), String> {
    let asked = &now.upgrade;
    let lies = |what: &str| Err(format!("the upgrade's status does not tell the truth\n{what}: {asked}"));
    let answer = &asked.answer;
    if asked.status != 0 || answer["open"] != false {
        return lies("nothing is under way");
    }
    let latest = &answer["latest"];
    let expected = match latest["ended"]["outcome"].as_str() {
        Some("upgraded") => &latest["to"],
        Some("returned") => &latest["from"],
        _ if latest.is_null() => &Value::Null,
        _ => return lies("an upgrade has an end"),
    };
    if !expected.is_null() && *expected != now.major {
        return lies("the server has another version");
    }
    let is_listed =
        |text: &str| asked.words.lines().any(|line| line.starts_with("kept:") && line.contains(text));
    let mut kept: Vec<_> = answer["kept"].as_array().into_iter().flatten().collect();
    for (path, version) in now.clusters.iter().filter(|(path, _)| path.starts_with("/matrix/postgres-auto")) {
        let Some(at) = kept.iter().position(|kept| kept["path"] == path.as_str()) else {
            return lies("a data directory is kept");
        };
        let named = kept.remove(at);
        if named["major"].as_u64() != version.parse().ok()
            || !is_listed(&format!("{path}, PostgreSQL {version}"))
        {
            return lies("a data directory of another version is kept");
        }
    }
    if !kept.is_empty() {
        return lies("no such data directory is kept");
    }
    // What a way back has put aside is the administrator's.
    let others = now.clusters.keys().find(|path| {
        !path.starts_with("/matrix/postgres-auto")
            && (!path.starts_with("/matrix/postgres/data.upgrade-") || path.ends_with("-copy"))
    });
    match others {
        Some(path) => Err(format!("a cluster is left lying about\n{path}")),
        None => Ok(()),
    }
}

fn backups(now: &Facts) -> Result<(), String> {
    let asked = &now.backup;
    let lies = |what: &str| {
        Err(format!("the backup's status does not tell the truth\n{what}: {:?} {asked}", now.backups))
    };
    let answer = &asked.answer;
    let newest = now.backups.iter().next_back();
    let verified =
        now.backups.iter().rev().find(|(_, backup)| backup.verified).map(|(name, _)| name.as_str());
    let problems: Vec<_> =
        answer["problems"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if answer["well"].is_null()
        || (answer["well"] == true) != (asked.status == 0)
        || (answer["well"] == true) != problems.is_empty()
    {
        return lies("its exit status and its words differ");
    }
    if answer["newest"]["name"].as_str() != newest.map(|(name, _)| name.as_str())
        || answer["newest"]["verified"].as_bool() != newest.map(|(_, backup)| backup.verified)
    {
        return lies("the newest backup is another");
    }
    if answer["newest_verified"].as_str() != verified {
        return lies("the newest verified backup is another");
    }
    if answer["backups"] != now.backups.len() {
        return lies("there are more or fewer backups");
    }
    if newest.is_some_and(|(_, backup)| !backup.verified) && answer["well"] == true {
        return lies("the newest backup is not verified");
    }
    let known = |problem: &&str| KNOWN_PROBLEMS.iter().any(|known| problem.contains(known));
    let unknown = problems
        .iter()
        .find(|problem| !(known(problem) || newest.is_none() && problem.contains("there is no backup")));
    match unknown {
        Some(problem) => lies(problem),
        None => Ok(()),
    }
}
