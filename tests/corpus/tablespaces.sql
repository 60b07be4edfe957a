-- alone: dump 40
-- alone: online 40
-- check: tablespace
-- A tablespace, with privileges and settings: backed up and restored; an upgrade does not begin.
CREATE ROLE tablespaces_role;
CREATE TABLESPACE corpus_space OWNER tablespaces_role LOCATION '/srv/corpus_space' WITH (random_page_cost = 1.1);
GRANT CREATE ON TABLESPACE corpus_space TO PUBLIC;
CREATE TABLE t (a int PRIMARY KEY USING INDEX TABLESPACE corpus_space) TABLESPACE corpus_space;
INSERT INTO t VALUES (1);
