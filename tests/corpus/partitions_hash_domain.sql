-- rows move: h0 h1
-- A key of a domain over an enum, and one of an array of enums: both hash by the enum's numbers.
CREATE TYPE e AS ENUM ('a', 'b', 'c', 'd');
CREATE DOMAIN d AS e;
CREATE TABLE h (k d, v int) PARTITION BY HASH (k);
CREATE TABLE h0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE h1 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO h SELECT (ARRAY['a', 'b', 'c', 'd'])[1 + n % 4]::e, n FROM generate_series(1, 100) n;
