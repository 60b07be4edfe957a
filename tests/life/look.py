# Looks at everything that there is to see in the machine, in one go, and prints it as JSON. What must be the case is not its
# business: but that it waits until the homeserver runs and nothing is on its way.
# usage: look.py '{"patience": 300, "message": "...", "token": "...", "room": "..."}'; without a message it only waits.
import glob, grp, json, os, psycopg2, pwd, stat, subprocess, sys, time, urllib.parse, urllib.request

asked = json.loads(sys.argv[1])
deadline = time.monotonic() + asked['patience']
STATE = '/var/lib/matrix-postgres-upgrade'
BACKUPS = '/var/backups/matrix-postgres'


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    return {'status': done.returncode, 'said': (done.stdout + done.stderr).strip(), 'stdout': done.stdout}


def end(found):
    print(json.dumps(found))
    sys.exit()


def stuck(what, more=''):
    units = run('systemctl', 'list-units', '--all', '--plain', '--no-legend', 'matrix-*')['stdout']
    journal = run('journalctl', '--no-pager', '--output=short', '--boot', '--lines=60', '--unit=matrix-*')['stdout']
    end({'stuck': f'{what}\n{more}\n{units}{journal}'})


def until(what, attempt):
    while True:
        try:
            found = attempt()
            if found is not None:
                return found
            problem = ''
        except (OSError, psycopg2.Error, ValueError) as error:
            problem = f'{type(error).__name__}: {error}'
        if time.monotonic() > deadline:
            stuck(what, problem)
        time.sleep(0.1)


def request(method, path, body=None):
    headers = {'Authorization': 'Bearer ' + asked.get('token', ''), 'Content-Type': 'application/json'}
    body = None if body is None else json.dumps(body).encode()
    call = urllib.request.Request('http://localhost:8008' + path, body, headers, method=method)
    with urllib.request.urlopen(call, timeout=20) as answer:
        return answer.read()


def ours_at_work():
    """Processes of our verbs, and of those who wait for their death."""
    found = []
    for path in glob.glob('/proc/[0-9]*/cmdline'):
        try:
            words = open(path, 'rb').read().decode(errors='replace').split('\0')
        except OSError:
            continue
        name = os.path.basename(words[0])
        if name in ('matrix-postgres-backup', 'matrix-postgres-upgrade') or 'read -r _ || exec "$@"' in ' '.join(words[:4]):
            found.append(' '.join(words).strip())
    return found


def calm():
    if run('systemctl', 'is-active', 'matrix-postgres.service', 'matrix-synapse.service')['status'] != 0:
        return None
    if 'matrix' in run('systemctl', 'list-jobs', '--no-legend')['stdout']:
        return None
    units = run('systemctl', 'list-units', '--all', '--plain', '--no-legend', 'matrix-*')['stdout'].split('\n')
    if any(word in ('activating', 'deactivating', 'reloading') for line in units for word in line.split()[2:3]):
        return None
    working = ours_at_work()
    if working:
        raise ValueError('still at work: ' + '; '.join(working))
    request('GET', '/health')
    return True


def log_in(database):
    return psycopg2.connect(host='/run/matrix-postgres', user='postgres', dbname=database)


def ask(database, statement):
    connection = log_in(database)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return [row[0] for row in cursor.fetchall()]
    finally:
        connection.close()


def acknowledged():
    return [int(line) for line in open('/var/tmp/life/acknowledged').read().split()]


def say():
    transaction = urllib.parse.quote(asked['message'])
    request('PUT', f"/_matrix/client/v3/rooms/{asked['room']}/send/m.room.message/{transaction}",
            {'msgtype': 'm.text', 'body': asked['message']})
    heard = json.loads(request('GET', f"/_matrix/client/v3/rooms/{asked['room']}/messages?dir=b&limit=1000"))
    return [event['content'].get('body') for event in heard['chunk'] if event['type'] == 'm.room.message']


def failed_units():
    found = []
    lines = run('systemctl', 'list-units', '--failed', '--plain', '--no-legend', 'matrix-*')['stdout'].split('\n')
    for unit in [line.split()[0] for line in lines if line]:
        shown = run('systemctl', 'show', '--property=InvocationID,Result', unit)['stdout']
        shown = dict(line.split('=', 1) for line in shown.split('\n') if line)
        invocation = shown['InvocationID']
        # systemd's own lines, and the unit's, of that invocation and no other.
        said = run('journalctl', '--no-pager', '--output=cat', '_SYSTEMD_INVOCATION_ID=' + invocation, '+',
                   'INVOCATION_ID=' + invocation)['stdout']
        found.append({'unit': unit, 'result': shown['Result'], 'said': said})
    if found:
        run('systemctl', 'reset-failed')
    return found


def status(program):
    asked = run(program, 'status', '--json')
    try:
        answer = json.loads(asked['stdout'])
    except ValueError:
        answer = None
    return {'status': asked['status'], 'said': asked['said'], 'answer': answer, 'words': run(program, 'status')['said']}


def backups():
    found = {}
    for name in sorted(os.listdir(BACKUPS)):
        if name.startswith('.'):
            continue
        try:
            manifest = json.load(open(f'{BACKUPS}/{name}/manifest.json'))
            read_back, trial = manifest.get('read_back'), manifest.get('trial') or {}
            verified = bool(read_back) and read_back.get('damage') is None and trial.get('damage') is None
            major = manifest['server']['version_num'] // 10000
            found[name] = {'verified': verified, 'major': major, 'tried': bool(trial)}
        except (OSError, ValueError, KeyError) as error:
            found[name] = {'verified': False, 'major': 0, 'tried': False, 'problem': str(error)}
    return found


def clusters():
    """Every data directory beside the one in use, and its version."""
    found = {}
    for path in glob.glob('/matrix/*') + glob.glob('/matrix/postgres/*') + glob.glob('/var/tmp/matrix-postgres*/*'):
        version = os.path.join(path, 'PG_VERSION')
        if path != '/matrix/postgres/data' and os.path.isfile(version):
            found[path] = open(version).read().strip()
    return found


def left():
    """What no verb may leave: in the directories of ours, and of servers."""
    found = [path for path in glob.glob('/run/matrix-postgres-upgrade*/*') + glob.glob('/var/tmp/matrix-postgres*/*')]
    found += [path for path in glob.glob('/matrix/postgres/*') if os.path.basename(path).startswith('data.')
              and not os.path.isfile(path + '/PG_VERSION')]
    for path in glob.glob('/proc/[0-9]*/cmdline'):
        try:
            words = open(path, 'rb').read().decode(errors='replace').split('\0')
        except OSError:
            continue
        if os.path.basename(words[0]) == 'postgres' and '-D' in words and '/matrix/postgres/data' not in words:
            found.append('a server: ' + ' '.join(words).strip())
    return found


# Not ours, and changed by others all the time.
OTHERS = ('/var/log', '/var/cache', '/var/tmp', '/var/lib/apt', '/var/lib/dpkg', '/var/lib/systemd', '/var/lib/docker', '/var/lib/containers',
          '/var/backups/matrix-postgres/', '/var/lib/matrix-postgres/', '/matrix/postgres/data', '/matrix/postgres-auto')


def owners():
    found = {}

    def note(path):
        try:
            seen = os.lstat(path)
        except OSError:
            return
        mode = '' if stat.S_ISLNK(seen.st_mode) else f':{seen.st_mode & 0o7777:o}'
        found[path] = f'{names(pwd.getpwuid, seen.st_uid)}:{names(grp.getgrgid, seen.st_gid)}{mode}'

    for top in ('/', '/usr', '/usr/bin', '/opt', '/boot', '/run', '/home'):
        for name in os.listdir(top):
            note(os.path.join(top, name))
    for top in ('/root', '/etc', '/var', '/srv', '/home', '/matrix'):
        for path, directories, files in os.walk(top):
            directories[:] = [name for name in directories if not f'{path}/{name}/'.startswith(OTHERS)]
            for name in directories + files:
                if not f'{path}/{name}'.startswith(OTHERS):
                    note(f'{path}/{name}')
    return found


def names(database, number, known={}):
    key = (database, number)
    if key not in known:
        try:
            known[key] = database(number)[0]
        except KeyError:
            known[key] = str(number)
    return known[key]


until('the homeserver does not run', calm)
version = until('the server lets nobody in', lambda: ask('postgres', 'SHOW server_version_num')[0])
databases = ask('postgres', 'SELECT datname FROM pg_database')
found = {
    'stuck': None,
    'major': int(version) // 10000,
    'databases': databases,
    'clusters': clusters(),
    'backups': backups(),
}
if 'message' not in asked:
    end(found)
found['messages'] = until('the homeserver runs, and answers no request', say)
before = len(acknowledged())
until('the writer gets nowhere', lambda: len(acknowledged()) > before or None)
written = acknowledged()
there = set(ask('homeserver', 'SELECT n FROM life'))
found['acknowledged'] = written[-1]
found['missing'] = [n for n in written if n not in there]
found['rows'] = sorted(there) if found['missing'] else []
# What a restore has taken away must lie beside.
aside = sorted(name for name in databases if name.startswith('homeserver_before_'))[-1:]
found['aside'] = [n for name in aside for n in ask(name, 'SELECT n FROM life')] if found['missing'] else []
found['failed'] = failed_units()
found['upgrade'] = status('matrix-postgres-upgrade')
found['backup'] = status('matrix-postgres-backup')
found['left'] = left()
found['owners'] = owners()
end(found)
