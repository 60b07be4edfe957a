-- Publications of all kinds: of all tables, of schemas, with lists of columns and filters, of partitions by way of the root, without anything.
-- since: 15
CREATE SCHEMA s;
CREATE TABLE t (id int PRIMARY KEY, v text, w text);
CREATE TABLE s.u (id int PRIMARY KEY);
CREATE PUBLICATION of_all FOR ALL TABLES WITH (publish = 'insert, truncate');
CREATE PUBLICATION of_schema FOR TABLES IN SCHEMA s;
CREATE PUBLICATION of_rows FOR TABLE t (id, v) WHERE (id > 5) WITH (publish_via_partition_root);
CREATE PUBLICATION empty;
ALTER TABLE t REPLICA IDENTITY FULL;
COMMENT ON PUBLICATION empty IS 'of nothing';
