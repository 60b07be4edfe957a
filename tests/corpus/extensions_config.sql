-- An extension with a table for configuration of which only the user's rows are dumped; its own come with it.
CREATE EXTENSION corpus_config SCHEMA public;
INSERT INTO corpus_config VALUES (10, 'of the user', false);
UPDATE corpus_config SET v = 'changed' WHERE id = 1;
INSERT INTO corpus_all VALUES (7);
SELECT nextval('corpus_config_seq') FROM generate_series(1, 5);
