//! To whom the objects of a dump belong that names no owners (`pg_dump --no-owner`).
//!
//! Whoever loads such a dump owns what is made. A restore is made by the superuser, and its programs are the owner's of
//! the database: with the superuser's tables, they could not even read them.

use crate::postgres::literal;

/// What is the superuser's after such a dump was loaded, and may be anybody's: not what is of extensions or was there
/// before, nor what only a superuser may own. Sequences of columns, types of tables, arrays and the like go with what
/// they belong to.
const OBJECTS: &str = "
    SELECT 'pg_class'::pg_catalog.regclass AS class, oid FROM pg_catalog.pg_class c
        WHERE relowner = me AND (relkind IN ('r', 'p', 'v', 'm', 'f')
            OR relkind = 'S' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend
                WHERE classid = 'pg_class'::pg_catalog.regclass AND objid = c.oid AND refclassid = 'pg_class'::pg_catalog.regclass
                    AND deptype IN ('a', 'i')))
    UNION ALL SELECT 'pg_type'::pg_catalog.regclass, oid FROM pg_catalog.pg_type t
        WHERE typowner = me AND typtype IN ('b', 'c', 'd', 'e', 'r')
            AND (typrelid = 0 OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = typrelid AND relkind = 'c'))
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_type element WHERE element.typarray = t.oid)
    UNION ALL SELECT 'pg_namespace'::pg_catalog.regclass, oid FROM pg_catalog.pg_namespace WHERE nspowner = me AND nspname !~ '^pg_'
    UNION ALL SELECT 'pg_proc'::pg_catalog.regclass, oid FROM pg_catalog.pg_proc WHERE proowner = me
    UNION ALL SELECT 'pg_operator'::pg_catalog.regclass, oid FROM pg_catalog.pg_operator WHERE oprowner = me
    UNION ALL SELECT 'pg_opclass'::pg_catalog.regclass, oid FROM pg_catalog.pg_opclass WHERE opcowner = me
    UNION ALL SELECT 'pg_opfamily'::pg_catalog.regclass, oid FROM pg_catalog.pg_opfamily WHERE opfowner = me
    UNION ALL SELECT 'pg_collation'::pg_catalog.regclass, oid FROM pg_catalog.pg_collation WHERE collowner = me
    UNION ALL SELECT 'pg_conversion'::pg_catalog.regclass, oid FROM pg_catalog.pg_conversion WHERE conowner = me
    UNION ALL SELECT 'pg_ts_dict'::pg_catalog.regclass, oid FROM pg_catalog.pg_ts_dict WHERE dictowner = me
    UNION ALL SELECT 'pg_ts_config'::pg_catalog.regclass, oid FROM pg_catalog.pg_ts_config WHERE cfgowner = me
    UNION ALL SELECT 'pg_statistic_ext'::pg_catalog.regclass, oid FROM pg_catalog.pg_statistic_ext WHERE stxowner = me
    UNION ALL SELECT 'pg_largeobject'::pg_catalog.regclass, oid FROM pg_catalog.pg_largeobject_metadata WHERE lomowner = me";

/// The kinds as `ALTER` calls them, where those of `pg_identify_object` are others.
const KIND: &str = "CASE WHEN kind IN ('function', 'procedure', 'aggregate') THEN 'ROUTINE'
    WHEN kind IN ('composite type', 'domain') THEN 'TYPE' WHEN kind = 'statistics object' THEN 'STATISTICS'
    ELSE pg_catalog.upper(kind) END";

/// Gives what is the superuser's in a database that has just been loaded to `owner`. Names come from the catalog, in
/// quotes where they need it.
pub(super) fn give(owner: &str) -> String {
    let body = format!(
        "DECLARE
    me pg_catalog.oid := (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user);
    statement pg_catalog.text;
BEGIN
    FOR statement IN SELECT pg_catalog.format('ALTER %s %s OWNER TO %I', {KIND}, identity, {owner})
        FROM ({OBJECTS}) AS objects, pg_catalog.pg_identify_object(class, oid, 0) AS i (kind, schema, name, identity)
        WHERE (oid >= 16384 OR class = 'pg_catalog.pg_largeobject'::pg_catalog.regclass) AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend
            WHERE classid = class AND objid = oid AND objsubid = 0 AND deptype = 'e')
        ORDER BY class <> 'pg_namespace'::pg_catalog.regclass, oid
    LOOP
        EXECUTE statement;
    END LOOP;
END",
        owner = literal(owner)
    );
    format!("DO {};\n", literal(&body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_name_it_is_one() {
        let sql = give("it's $$ \"x\"");
        assert!(sql.starts_with("DO "), "{sql}");
        assert_eq!(crate::sql::tokens(&sql).len(), 3, "{sql}");
    }
}
