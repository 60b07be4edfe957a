-- check: replication origin "corpus_mine" is not migrated
-- Origins of a replication of one's own, which belong to the cluster.
SELECT pg_replication_origin_create('corpus_mine');
CREATE TABLE t (a int);
