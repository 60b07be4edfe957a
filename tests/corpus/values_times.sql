-- Times at their ends and between: infinity, before Christ, leap seconds, intervals of mixed signs, zones.
CREATE TABLE t (a date, b timestamp, c timestamptz, d interval, e timetz, f time(3));
INSERT INTO t VALUES ('infinity', '-infinity', 'infinity', '-1 year +2 mons -3 days 04:05:06.789', '24:00:00-15:59:59', '23:59:59.9996'),
    ('4713-01-01 BC', '294276-12-31 23:59:59.999999', '0001-01-01 00:00:00+00 BC', '178000000 years', '00:00+15:59', '00:00'),
    ('5874897-12-31', '4713-01-01 00:00 BC', '1883-11-18 12:03:58-04:56:02', '-178000000 years', '12:00', NULL),
    ('2000-02-29', '2026-06-30 23:59:60', '2026-10-25 02:30:00+01', '1.5 weeks', NULL, NULL);
