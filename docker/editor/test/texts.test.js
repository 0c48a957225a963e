// The two languages have the same texts, with the same places.
import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {test} from 'node:test';
import {BackendError} from '../src/backend.js';
import {ALL, chosenLocale, explain, LOCALES, texts} from '../src/texts.js';

const places = text => (text.match(/\{\w+\}/g) ?? []).sort();
const storage = kept => ({getItem: () => kept});

test('each text exists in each language with the same places', () => {
    for (const locale of LOCALES) {
        assert.deepEqual(Object.keys(ALL[locale]), Object.keys(ALL.de));
        for (const [name, text] of Object.entries(ALL[locale])) assert.deepEqual(places(text), places(ALL.de[name]), name);
    }
});

test('each text that a page names exists, and each text is named', () => {
    const sources = ['editor', 'pages', 'header', 'texts'].map(name => readFileSync(`src/${name}.js`, 'utf8')).join('\n');
    const named = new Set([...sources.matchAll(/\bt\('(\w+)'/g)].map(match => match[1]));
    for (const name of named) assert.ok(name in ALL.de, name);
    const computed = [/^error\d+$/, /^(copy|rename|remove|share|versions|language)$/];
    for (const name of Object.keys(ALL.de)) {
        assert.ok(named.has(name) || computed.some(each => each.test(name)), `no page uses the text ${name}`);
    }
});

test('language is the chosen one, else the browser’s, else English', () => {
    assert.equal(chosenLocale(storage('de'), ['en']), 'de');
    assert.equal(chosenLocale(storage(null), ['fr-FR', 'de-AT', 'en']), 'de');
    assert.equal(chosenLocale(storage('xx'), ['fr']), 'en');
});

test('each error has a message in the person’s language', () => {
    const t = texts('de');
    assert.match(explain(t, new BackendError(0)), /^Keine Verbindung/);
    assert.match(explain(t, new BackendError(502)), /beschäftigt/);
    assert.match(explain(t, new BackendError(507)), /kein Platz/);
    assert.match(explain(t, new BackendError(413)), /zu groß/);
    assert.equal(explain(t, new BackendError(400, {error: 'The title is wrong.'})), 'Das hat nicht geklappt: The title is wrong.');
});
