-- since: 14
-- An extension of a version that is not the newest: a dump brings the newest, pg_upgrade the old one, which is updated.
CREATE EXTENSION pg_stat_statements VERSION '1.9';
CREATE EXTENSION hstore VERSION '1.4';
CREATE TABLE t (h hstore);
INSERT INTO t VALUES ('a=>1, "b c"=>NULL');
