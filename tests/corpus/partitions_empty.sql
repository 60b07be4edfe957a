-- Partitioned tables without partitions, and one whose only partition is partitioned and has none.
CREATE TABLE p (a int) PARTITION BY RANGE (a);
CREATE TABLE q (a int, b int) PARTITION BY RANGE (a, b);
CREATE TABLE q1 PARTITION OF q FOR VALUES FROM (MINVALUE, MINVALUE) TO (1, MAXVALUE) PARTITION BY HASH (a);
