-- Columns of row types and of internal kinds: oid, xid, cid, tid, refcursor, xid8, tsquery.
CREATE TABLE t (a oid, b xid, c cid, d tid, e refcursor, f xid8, g tsquery, h tsvector);
INSERT INTO t VALUES (4294967295, '4294967295', '7', '(4294967295,65535)', 'cur', '18446744073709551615', '''it''''s'' & ( b:AB* | !c )', '''a b'':1A,2 c');
