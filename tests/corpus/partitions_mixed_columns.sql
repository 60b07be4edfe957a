-- Partitions whose columns stand in another order, or that have dropped ones, and a default partition.
CREATE TABLE p (a int, b text, c date) PARTITION BY RANGE (a);
CREATE TABLE p1 (c date, gone int, b text, a int);
ALTER TABLE p1 DROP COLUMN gone;
ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (0) TO (10);
CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (MAXVALUE);
CREATE TABLE pd PARTITION OF p DEFAULT;
CREATE INDEX ON p (b);
CREATE UNIQUE INDEX only_p1 ON p1 (c, b);
ALTER TABLE p2 ALTER COLUMN b SET DEFAULT 'of p2';
INSERT INTO p SELECT n, 'b' || n, '2026-01-01'::date + n FROM generate_series(-5, 20) n;
