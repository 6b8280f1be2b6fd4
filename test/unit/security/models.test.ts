import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { HostErrorLog } from '#base/host-error-log.ts';
import { exportProblems } from '#exports/exports.ts';
import { type ModelEntry, modelEntry, modelNames, models, optionProblems } from '#security/models.ts';

const src = fileURLToPath(new URL('../../../src', import.meta.url));

describe('the registry of security models', () => {
  it('creates every model under its name and its aliases', async () => {
    const services = { hostErrors: new HostErrorLog(() => undefined), groupsOf: () => undefined };
    for (const name of modelNames) {
      const entry = modelEntry(name)!;
      expect((await entry.create({}, services)).name).toBe(entry.name);
    }
    expect(new Set(modelNames).size).toBe(modelNames.length);
  });

  it('has lines for --help that fit its columns', () => {
    for (const { summary } of models) {
      expect(summary.length).toBeGreaterThan(0);
      for (const line of summary) expect(line.length).toBeLessThanOrEqual(75);
    }
  });

  it('refuses options of another model, and says which model takes them', async () => {
    const mapped: ModelEntry = modelEntry('mapped')!;
    const problems = async (entry: ModelEntry, options: object) =>
      (await optionProblems(entry, options)).join();
    expect(await problems(mapped, { squash: 'root' })).toMatch(/squash is for .*passthrough.*leave/);
    expect(await problems(mapped, { squash: 'none', map: [], fmode: 0o640 })).toBe('');
    expect(await problems(modelEntry('passthrough')!, { dmode: 0o750 })).toMatch(/dmode is for .*mapped/);
  });

  it('checks the values of options for their model', async () => {
    const problems = async (name: 'mapped' | 'none', options: object) =>
      (await optionProblems(modelEntry(name)!, options)).join();
    expect(await problems('mapped', { owner: '1000:100', fileMode: 0o644, records: 'override_stat' })).toBe(
      '',
    );
    expect(await problems('none', { owner: '0:4294967294', chown: 'refuse' })).toBe('');
    expect(await problems('none', { owner: 'caller' })).toBe('');
    expect(await problems('mapped', { owner: 'caller' })).toContain(
      'owner=caller is no owner: write owner=UID:GID',
    );
    for (const owner of ['1000', 'me:me', '1:4294967295', ''])
      expect(await problems('none', { owner })).toContain(`owner=${owner} is no owner`);
    expect(await problems('none', { chown: 'fail' })).toContain('chown=ignore or chown=refuse');
    expect(await problems('mapped', { records: 'podman' })).toContain('records=override_stat');
    expect(await problems('none', { fileMode: 0o644, dirMode: 0o755 })).toContain(
      'file_mode and dir_mode are for security_model=mapped',
    );
  });

  it('is asked before a name is served that it lacks', async () => {
    const problems = await exportProblems([{ path: '/', securityModel: 'maped' as 'mapped' }]);
    expect(problems.join()).toContain(
      'there is no security model "maped" (did you mean "mapped"?): choose mapped',
    );
  });

  it('is the only place where the program asks for a model by its name', () => {
    const files = ['cli', 'exports', 'workers'].flatMap(folder =>
      readdirSync(`${src}/${folder}`).map(name => `${src}/${folder}/${name}`),
    );
    const naming = files.filter(path => /[=!]== '(mapped|passthrough)/.test(readFileSync(path, 'utf8')));
    expect(naming).toEqual([]);
  });
});
