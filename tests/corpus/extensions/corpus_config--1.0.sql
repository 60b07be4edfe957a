CREATE TABLE corpus_config (id int PRIMARY KEY, v text, builtin bool DEFAULT true);
INSERT INTO corpus_config VALUES (1, 'one'), (2, 'two'), (3, 'three');
CREATE TABLE corpus_all (n int);
CREATE SEQUENCE corpus_config_seq;
SELECT pg_catalog.pg_extension_config_dump('corpus_config', 'WHERE NOT builtin');
SELECT pg_catalog.pg_extension_config_dump('corpus_all', '');
SELECT pg_catalog.pg_extension_config_dump('corpus_config_seq', '');
