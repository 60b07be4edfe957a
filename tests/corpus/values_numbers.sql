-- Numbers at their ends: NaN, infinities, negative zero, the largest and smallest, numerics of many digits and negative scale.
-- since: 15
CREATE TABLE t (a float4, b float8, c numeric, d numeric(3, -2), e money, f int8, g smallint);
INSERT INTO t VALUES ('NaN', '-0', 'NaN', 12345, '-92233720368547758.08', -9223372036854775808, -32768),
    ('infinity', '5e-324', '-Infinity', -98765, '92233720368547758.07', 9223372036854775807, 32767),
    ('1.17549e-38', '1.7976931348623157e308', ('1' || repeat('0', 5000) || '.' || repeat('7', 3000))::numeric, 0, '0.01', 0, 0),
    ('3.4028235e38', 0.1 + 0.2::float8, 0.000000000000000000000000000000000000000001, NULL, NULL, NULL, NULL);
