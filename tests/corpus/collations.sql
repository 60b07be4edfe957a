-- Collations: ICU's with attributes, one that is not deterministic, libc's; columns, indexes and domains with them.
CREATE COLLATION german (provider = icu, locale = 'de-DE-u-co-phonebk');
CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE COLLATION plain (provider = libc, locale = 'C.UTF-8');
CREATE COLLATION "it's a copy" FROM german;
COMMENT ON COLLATION blind IS 'upper and lower case are equal';
CREATE DOMAIN name_of AS text COLLATE blind;
CREATE TABLE t (a text COLLATE german, b text COLLATE blind UNIQUE, c name_of, d text COLLATE "und-x-icu");
INSERT INTO t VALUES ('Äpfel', 'Straße', 'X', 'ö'), ('zebra', 'STRASSE2', 'x', 'O');
CREATE INDEX ON t (a, d COLLATE plain);
