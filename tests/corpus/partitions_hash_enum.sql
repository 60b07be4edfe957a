-- rows move: h0 h1
-- Values of an enum hash by their number, which a dump does not keep: rows belong to other partitions afterwards.
CREATE TYPE e AS ENUM ('a', 'b', 'c');
CREATE TABLE h (k e, v int) PARTITION BY HASH (k);
CREATE TABLE h0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE h1 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO h SELECT (ARRAY['a', 'b', 'c'])[1 + n % 3]::e, n FROM generate_series(1, 999) n;
