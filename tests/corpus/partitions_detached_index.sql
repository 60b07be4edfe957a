-- A partitioned index that has no part of its own for one partition: made ONLY, and so not valid.
CREATE TABLE p (a int, b int) PARTITION BY LIST (a);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
CREATE INDEX p_b ON ONLY p (b);
CREATE INDEX p1_b ON p1 (b);
ALTER INDEX p_b ATTACH PARTITION p1_b;
INSERT INTO p VALUES (1, 1), (2, 2);
