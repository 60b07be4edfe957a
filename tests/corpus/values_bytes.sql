-- All bytes there are, in bytea, bit strings of any length, and network addresses.
CREATE TABLE t (a bytea, b bit(3), c bit varying, d inet, e cidr, f macaddr8, g uuid, h pg_lsn, i txid_snapshot);
INSERT INTO t SELECT decode(string_agg(lpad(to_hex(n), 2, '0'), ''), 'hex') FROM generate_series(0, 255) n;
INSERT INTO t VALUES ('', B'101', B'', '::ffff:1.2.3.4/96', '10.0.0.0/8', '08:00:2b:01:02:03:04:05', '00000000-0000-0000-0000-000000000000', 'FFFFFFFF/FFFFFFFF', '10:20:10,14,15');
