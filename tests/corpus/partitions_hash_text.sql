-- Text hashes alike everywhere: each partition has its own rows again.
CREATE TABLE h (k text COLLATE "C", v int) PARTITION BY HASH (k);
CREATE TABLE h0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE h1 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO h SELECT 'x' || n, n FROM generate_series(1, 99) n;
