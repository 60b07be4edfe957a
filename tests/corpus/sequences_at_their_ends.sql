-- Sequences at their end, never used, cycling, descending, with a cache, of small types, unlogged ones' neighbours.
CREATE SEQUENCE ended MAXVALUE 3;
SELECT nextval('ended') FROM generate_series(1, 3);
CREATE SEQUENCE unused START 42;
CREATE SEQUENCE turning MAXVALUE 3 CYCLE;
SELECT nextval('turning') FROM generate_series(1, 5);
CREATE SEQUENCE down INCREMENT -3 MINVALUE -9223372036854775808;
SELECT setval('down', -9223372036854775808);
CREATE SEQUENCE top AS bigint;
SELECT setval('top', 9223372036854775807);
CREATE SEQUENCE tiny AS smallint CACHE 100;
SELECT nextval('tiny');
CREATE SEQUENCE reset;
SELECT setval('reset', 7, false);
