// Builds dist/, which nginx serves: scratch-gui's finished file, unchanged, and our pages around it.
import {createHash} from 'node:crypto';
import {cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {join, relative} from 'node:path';
import {brotliCompressSync, constants, gzipSync} from 'node:zlib';
import {build} from 'esbuild';

const GUI = 'node_modules/@scratch/scratch-gui';
const OUT = 'dist';
// Pictures of the tutorials in languages that our pages do not have; the tutorials then show the English ones.
const OTHER_LANGUAGES = /\/assets\/[^/]+\.(?!en\.|LTR\.|RTL\.)[a-z]{2}(_[A-Z]{2})?\.[0-9a-f]{20}\.(gif|png|svg|jpg)$/;
const COMPRESSED = /\.(js|css|html|svg|json|txt|map|hex|wasm)$/;
const quick = process.argv.includes('--quick');

/** The name of a file with a digest of its content, so that a browser may keep it for ever. */
function hashed (name, content) {
    const digest = createHash('sha256').update(content).digest('hex').slice(0, 16);
    return name.replace(/(\.\w+)$/, `.${digest}$1`);
}

function files (folder) {
    return readdirSync(folder, {withFileTypes: true, recursive: true})
        .filter(entry => entry.isFile())
        .map(entry => join(entry.parentPath ?? entry.path, entry.name));
}

rmSync(OUT, {recursive: true, force: true});
mkdirSync(`${OUT}/code`, {recursive: true});

const gui = readFileSync(`${GUI}/dist/scratch-gui-standalone.js`);
const names = {gui: `/code/${hashed('scratch-gui.js', gui)}`};
writeFileSync(OUT + names.gui, gui);
for (const folder of ['static', 'chunks']) {
    cpSync(`${GUI}/dist/${folder}`, `${OUT}/${folder}`, {
        recursive: true,
        filter: path => !OTHER_LANGUAGES.test(path) && !path.endsWith('.map')
    });
}

const {outputFiles} = await build({
    entryPoints: {editor: 'src/editor.js', pages: 'src/pages.js', style: 'src/style.css'},
    bundle: true,
    minify: true,
    format: 'esm',
    target: ['chrome110', 'firefox115', 'safari16'],
    outdir: OUT,
    write: false
});
for (const file of outputFiles) {
    const name = relative(OUT, relative(process.cwd(), file.path));
    names[name.replace(/\.\w+$/, '')] = `/code/${hashed(name, file.contents)}`;
    writeFileSync(OUT + `/code/${hashed(name, file.contents)}`, file.contents);
}

// scratch4schoolctl and scripts/editor-library fetch the library's files by this list, without npm; so it must be complete.
const libraries = `${GUI}/src/lib/libraries`;
const offered = new Set(['costumes', 'sprites', 'sounds', 'backdrops'].flatMap(kind =>
    [...readFileSync(`${libraries}/${kind}.json`, 'utf8').matchAll(/"md5ext":\s*"([0-9a-f]{32}\.\w+)"/g)].map(match => match[1])));
const listed = JSON.stringify([...offered].sort(), null, 2) + '\n';
if (listed !== readFileSync('library.json', 'utf8')) {
    if (!process.argv.includes('--write-library')) throw new Error('library.json differs from the package: run npm run build -- --write-library');
    writeFileSync('library.json', listed);
}
cpSync('library.json', `${OUT}/library.json`);

const values = {...names, gui_version: JSON.parse(readFileSync(`${GUI}/package.json`, 'utf8')).version};
for (const path of files('public')) {
    const target = join(OUT, relative('public', path));
    mkdirSync(join(target, '..'), {recursive: true});
    const content = readFileSync(path);
    writeFileSync(target, path.endsWith('.html') ?
        content.toString().replace(/\{(\w+)\}/g, (_place, key) => values[key]) : content);
}
cpSync(`${GUI}/LICENSE`, `${OUT}/licence.txt`);

let text = 0;
let sent = 0;
for (const path of files(OUT).filter(each => COMPRESSED.test(each))) {
    const content = readFileSync(path);
    const brotli = brotliCompressSync(content, {params: {
        [constants.BROTLI_PARAM_QUALITY]: quick ? 4 : 9,
        [constants.BROTLI_PARAM_SIZE_HINT]: content.length
    }});
    writeFileSync(`${path}.br`, brotli);
    writeFileSync(`${path}.gz`, gzipSync(content, {level: quick ? 1 : 9}));
    text += content.length;
    sent += brotli.length;
}
console.log(`${OUT}/: ${files(OUT).length} files; text files ${(text / 1e6).toFixed(1)} MB, with brotli ${(sent / 1e6).toFixed(1)} MB`);
