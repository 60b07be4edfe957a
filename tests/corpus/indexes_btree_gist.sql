-- alone: nothing
-- Indexes of btree_gist of the kinds that 19 does not make by default any more.
CREATE EXTENSION btree_gist;
CREATE TABLE t (a inet, b cidr, EXCLUDE USING gist (a WITH =));
INSERT INTO t VALUES ('10.0.0.1', '10.0.0.0/8'), ('::1', '::/0');
CREATE INDEX ON t USING gist (b);
CREATE INDEX ON t USING gist (a, b);
