# A client that belongs to no unit: every number is used once, and what the server has acknowledged is noted down outside of
# the database.
import os, psycopg2, re, time

password = re.search(r'password: "?([^"\s]+)', open('/etc/matrix-synapse/database.yaml').read()).group(1)
try:
    n = int(open('/var/tmp/life/last').read() or 0)
except FileNotFoundError:
    n = 0
acknowledged = open('/var/tmp/life/acknowledged', 'a', buffering=1)
while True:
    try:
        connection = psycopg2.connect(host='/run/matrix-postgres', user='synapse', password=password, dbname='homeserver')
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute('CREATE TABLE IF NOT EXISTS life (n bigint PRIMARY KEY)')
        while True:
            n += 1
            with open('/var/tmp/life/next', 'w') as last:
                last.write(str(n))
            os.replace('/var/tmp/life/next', '/var/tmp/life/last')
            cursor.execute('INSERT INTO life VALUES (%s)', (n,))
            acknowledged.write(f'{n}\n')
            time.sleep(0.05)
    except psycopg2.Error:
        time.sleep(0.02)
