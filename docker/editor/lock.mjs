// Writes package-lock.json; run it after a change of a version in package.json.
// The file of scratch-gui that we serve has its own dependencies in it. So the lock names that package without them:
// npm would install 740 packages that no page uses.
import {execFileSync} from 'node:child_process';
import {readFileSync, writeFileSync} from 'node:fs';

const GUI = '@scratch/scratch-gui';
const text = readFileSync('package.json', 'utf8');
const root = JSON.parse(text);
const {[GUI]: version, ...others} = root.dependencies;
writeFileSync('package.json', JSON.stringify({...root, dependencies: others}));
try {
    execFileSync('npm', ['install', '--package-lock-only', '--ignore-scripts', '--no-audit', '--no-fund'], {stdio: 'inherit'});
} finally {
    writeFileSync('package.json', text);
}
const view = field => JSON.parse(execFileSync('npm', ['view', `${GUI}@${version}`, field, '--json'], {encoding: 'utf8'}));
const lock = JSON.parse(readFileSync('package-lock.json', 'utf8'));
lock.packages[''].dependencies = root.dependencies;
lock.packages[`node_modules/${GUI}`] = {version, integrity: view('dist.integrity'), license: 'AGPL-3.0-only'};
writeFileSync('package-lock.json', `${JSON.stringify(lock, null, 2)}\n`);
