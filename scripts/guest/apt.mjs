// Debian's archive through apt with separate state: this machine's package lists, pins and installed packages are neither used
// nor changed. Only the mirror is this machine's.
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hashOf, say, scriptDir } from './paths.mjs';

const suite = 'trixie';
const unwanted = ['doc', 'man', 'locale', 'info', 'lintian', 'bash-completion', 'bug', 'i18n'];

// Each package file of a request: { file, uri, size in bytes }.
export class DebianArchive {
  #dir;
  #release;
  #options;
  #resolved;

  // Other releases than the guests' without updates: testing has none.
  constructor(dir, release = suite, architecture = 'amd64') {
    this.#dir = dir;
    this.#release = release;
    this.#options = [
      ['Dir::Etc::sourcelist', '/dev/null'],
      ['Dir::Etc::sourceparts', join(dir, 'sources')],
      ['Dir::Etc::preferences', '/dev/null'],
      ['Dir::Etc::preferencesparts', '/dev/null'],
      ['Dir::State', dir],
      ['Dir::State::lists', join(dir, 'lists')],
      ['Dir::State::status', join(dir, 'status')],
      ['Dir::Cache', dir],
      ['Dir::Cache::archives', join(dir, 'archives')],
      ['APT::Install-Recommends', 'false'],
      ['APT::Sandbox::User', ''],
      ['APT::Architecture', architecture],
      ['APT::Architectures', architecture],
    ].flatMap(([name, value]) => ['-o', `${name}=${value}`]);
  }

  forget() {
    rmSync(this.#dir, { recursive: true, force: true });
  }

  dropDownloads() {
    rmSync(join(this.#dir, 'archives'), { recursive: true, force: true });
    rmSync(join(this.#dir, 'lists'), { recursive: true, force: true });
  }

  // The package files of every request, cached: a later run needs no network.
  resolve(requests) {
    const wanted = hashOf([JSON.stringify(requests), readFileSync(join(scriptDir, 'apt.mjs'))]);
    const kept = join(this.#dir, `resolved-${wanted}.json`);
    if (!existsSync(kept)) {
      this.#update();
      const found = Object.entries(requests).map(([name, request]) => [name, this.#resolveOne(request)]);
      writeFileSync(kept, JSON.stringify(Object.fromEntries(found), null, 1));
    }
    this.#resolved = JSON.parse(readFileSync(kept, 'utf8'));
    return this.#resolved;
  }

  #apt(command, ...args) {
    return execFileSync(command, [...this.#options, ...args], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
      maxBuffer: 64 << 20,
    });
  }

  #update() {
    for (const dir of ['lists/partial', 'archives/partial', 'sources']) {
      mkdirSync(join(this.#dir, dir), { recursive: true });
    }
    writeFileSync(join(this.#dir, 'status'), '');
    writeFileSync(join(this.#dir, 'sources/debian.sources'), debianSources(this.#release));
    say('asking Debian for its package lists');
    this.#apt('apt-get', '-q', 'update');
  }

  // request: { packages, metapackage?, fromBackports? }. A metapackage stands for its first dependency alone.
  #resolveOne({ packages, metapackage, fromBackports }) {
    if (metapackage !== undefined) {
      const depends = this.#apt('apt-cache', 'depends', metapackage);
      const name = /Depends: (\S+)/.exec(depends)?.[1];
      if (name === undefined) throw new Error(`${metapackage} depends on nothing:\n${depends}`);
      return parseUris(this.#apt('apt-get', 'download', '--print-uris', name));
    }
    const target = fromBackports ? ['-t', `${suite}-backports`] : [];
    return parseUris(this.#apt('apt-get', ...target, 'install', '-y', '--print-uris', ...packages));
  }

  // Unpacks package files below `dir`, without their documentation and translations; `paths` limits what.
  async unpack(files, dir, { leaveOut = [], paths = [] } = {}) {
    const wanted = files.filter(({ file }) => !leaveOut.some(pattern => pattern.test(packageOf(file))));
    this.#download(wanted);
    // Debian's merged /usr: packages still may name /lib, and tar then has to follow the link.
    for (const name of ['bin', 'sbin', 'lib', 'lib64']) {
      mkdirSync(join(dir, 'usr', name), { recursive: true });
      if (!existsSync(join(dir, name))) execFileSync('ln', ['-s', `usr/${name}`, join(dir, name)]);
    }
    const queue = [...wanted];
    const worker = async () => {
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
        await unpackOne(join(this.#dir, 'archives', next.file), dir, paths);
      }
    };
    await Promise.all([worker(), worker()]);
  }

  #download(files) {
    const archives = join(this.#dir, 'archives');
    mkdirSync(join(archives, 'partial'), { recursive: true });
    if (!existsSync(join(this.#dir, 'lists'))) this.#update();
    const have = new Set(readdirSync(archives));
    const missing = files.filter(({ file }) => !have.has(file));
    if (missing.length === 0) return;
    const megabytes = missing.reduce((sum, { size }) => sum + size, 0) / 1e6;
    say(`downloading ${missing.length} packages, ${megabytes.toFixed(0)} MB`);
    // apt-get download checks each file against the signed lists; it writes to the working directory.
    execFileSync(
      'apt-get',
      [...this.#options, '-q', 'download', ...missing.map(({ file }) => nameAndVersion(file))],
      { cwd: archives, stdio: ['ignore', 'ignore', 'inherit'] },
    );
  }
}

function packageOf(file) {
  return file.slice(0, file.indexOf('_'));
}

function nameAndVersion(file) {
  const [name, version] = file.split('_');
  return `${name}=${decodeURIComponent(version)}`;
}

function parseUris(text) {
  return [...text.matchAll(/^'(\S+)' (\S+) (\d+)/gm)].map(([, uri, file, size]) => ({
    uri,
    file,
    size: Number(size),
  }));
}

function unpackOne(file, dir, paths) {
  const excludes = unwanted.map(name => `--exclude=./usr/share/${name}`);
  const tar = spawn(
    'tar',
    ['-x', '--keep-directory-symlink', ...excludes, '-C', dir, '--wildcards', ...paths],
    {
      stdio: ['pipe', 'ignore', 'inherit'],
    },
  );
  const dpkg = spawn('dpkg-deb', ['--fsys-tarfile', file], { stdio: ['ignore', 'pipe', 'inherit'] });
  dpkg.stdout.pipe(tar.stdin);
  return Promise.all([ended(dpkg, file), ended(tar, file)]);
}

function ended(child, what) {
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', code => (code === 0 ? resolve() : reject(new Error(`${what}: exit status ${code}`))));
  });
}

// This machine's own Debian mirrors, with the suites we want.
function debianSources(release) {
  const own = ['/etc/apt/sources.list.d/debian.sources', '/etc/apt/sources.list.d/debian-sources.sources'];
  const path = own.find(existsSync);
  if (path === undefined) {
    throw new Error(`no ${own[0]}: guests are made from Debian packages, on a Debian ${suite} or newer`);
  }
  const stanzas = readFileSync(path, 'utf8')
    .split(/\n\s*\n/)
    .filter(stanza => /^Types:.*\bdeb\b/m.test(stanza));
  const field = (stanza, name) => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(stanza)?.[1];
  return stanzas
    .filter(stanza => release === suite || field(stanza, 'Suites')?.includes('-security') === false)
    .map(stanza => {
      const security = field(stanza, 'Suites')?.includes('-security');
      const stable = security ? `${suite}-security` : `${suite} ${suite}-updates ${suite}-backports`;
      const suites = release === suite ? stable : release;
      return [
        'Types: deb',
        `URIs: ${field(stanza, 'URIs')}`,
        `Suites: ${suites}`,
        'Components: main',
        `Signed-By: ${field(stanza, 'Signed-By')}`,
        '',
      ].join('\n');
    })
    .join('\n');
}
