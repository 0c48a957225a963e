// Our own pages: the first page, projects, shared projects, pupils, versions. One HTML file; the address chooses.
import {Backend, BackendError} from './backend.js';
import {Drafts} from './drafts.js';
import {confirmLogOut, header} from './header.js';
import {ask, askText, element, moment, shown} from './page.js';
import {Person} from './person.js';
import {chosenLocale, explain, texts} from './texts.js';

const locale = chosenLocale();
const t = texts(locale);
const backend = new Backend({fetch: (...args) => fetch(...args)});
const drafts = new Drafts(indexedDB);
const person = new Person({backend});
const TITLE_LENGTH = 100; // of the back end

/** Do something that asks the back end, and show its error as a message. */
function guarded (work) {
    return async event => {
        const button = event?.currentTarget;
        if (button) button.disabled = true;
        try {
            await work();
        } catch (error) {
            if (!(error instanceof BackendError)) throw error;
            await ask({title: explain(t, error), choices: [[true, t('ok')]], escape: true});
        } finally {
            if (button) button.disabled = false;
        }
    };
}

const button = (label, work, attributes = {}) => element('button', {type: 'button', onclick: guarded(work), ...attributes}, label);

const ACTIONS = {
    copy: async project => {
        await backend.json('POST', `/api/projects/${project.id}/copy`);
        await render();
    },
    rename: async project => {
        const title = await askText({
            title: t('rename'), label: t('newTitle'), value: project.title, maxLength: TITLE_LENGTH,
            accept: t('ok'), cancel: t('cancel')
        });
        if (title === null || title === project.title) return;
        await backend.json('PUT', `/api/projects/${project.id}`, {json: {title}});
        await render();
    },
    remove: async project => {
        const sure = await ask({
            title: t('removeQuestion', {title: project.title}),
            body: element('p', {}, t('removeText')),
            choices: [[false, t('cancel')], [true, t('remove')]],
            escape: false
        });
        if (!sure) return;
        await backend.json('DELETE', `/api/projects/${project.id}`);
        await drafts.remove(person.user.id, String(project.id)).catch(() => {});
        await render();
    },
    share: async project => {
        const {groups} = await backend.json('GET', '/api/groups');
        const chosen = new Set(project.shared_with_groups.map(group => group.id));
        const boxes = groups.map(group => element('label', {class: 'choice'},
            element('input', {
                type: 'checkbox', checked: chosen.has(group.id),
                onchange: event => chosen[event.target.checked ? 'add' : 'delete'](group.id)
            }), group.name));
        const sure = await ask({
            title: t('shareQuestion', {title: project.title}),
            body: groups.length === 0 ? element('p', {}, t('noGroups')) : boxes,
            choices: groups.length === 0 ? [[false, t('ok')]] : [[true, t('share')], [false, t('cancel')]],
            escape: false
        });
        if (!sure) return;
        await backend.json('POST', `/api/projects/${project.id}/share`, {json: {group_ids: [...chosen]}});
        await render();
    },
    versions: project => location.assign(`/versions/${project.id}`)
};

/** A project in a list, with the buttons for `actions`. */
function card (project, actions) {
    const groups = (project.shared_with_groups ?? []).map(group => group.name);
    return element('li', {class: 'card'},
        element('a', {href: `/editor/${project.id}`, class: 'picture', 'aria-label': `${t('open')}: ${project.title}`},
            element('img', {src: project.thumbnail_url ?? '/pictures/no-thumbnail.svg', alt: '', loading: 'lazy'})),
        element('h2', {}, element('a', {href: `/editor/${project.id}`}, project.title)),
        element('p', {class: 'quiet'},
            project.owner ? `${t('of', {name: project.owner.username})} · ` : null,
            element('time', {datetime: moment(project.updated_at).toISOString()}, shown(moment(project.updated_at), locale))),
        groups.length > 0 ? element('p', {class: 'quiet'}, `${t('share')}: ${groups.join(', ')}`) : null,
        element('div', {class: 'buttons'}, actions.map(name => button(t(name), () => ACTIONS[name](project), {
            'aria-label': `${t(name)}: ${project.title}`, class: name === 'remove' ? 'danger' : null
        }))));
}

const list = (projects, actions, empty) => (projects.length === 0 ?
    element('p', {class: 'empty'}, empty) :
    element('ul', {class: 'cards'}, projects.map(project => card(project, actions))));

/** The drafts of projects that the server does not know; those of other projects are offered when one opens them. */
async function draftList () {
    const left = (await drafts.of(person.user.id).catch(() => []));
    if (left.length === 0) return null;
    return element('section', {class: 'drafts'},
        element('h2', {}, t('drafts')),
        element('ul', {}, left.map(draft => element('li', {},
            element('a', {href: draft.projectId === null ? `/editor?draft=${draft.key}` : `/editor/${draft.projectId}`},
                t('draftText', {title: draft.title, date: shown(new Date(draft.changedAt), locale)}))))));
}

const PAGES = {
    '/': {
        open: true,
        content: async () => {
            if (person.user !== null) {
                location.replace('/projects');
                return [];
            }
            const error = new URLSearchParams(location.search).get('error');
            history.replaceState(null, '', '/');
            return [
                element('h1', {}, t('welcome')),
                error ? element('p', {class: 'notice', role: 'alert'}, t('loginFailed'), ' ', error.slice(0, 500)) : null,
                element('p', {}, t('welcomeText')),
                element('a', {class: 'button primary', href: person.loginAddress('/projects')}, t('logIn'))
            ];
        }
    },
    '/logged-in': {
        open: true,
        content: async () => {
            if (person.user !== null) person.announceLogin();
            return [element('h1', {}, t('loggedIn')), button(t('close'), () => window.close())];
        }
    },
    '/projects': {
        content: async () => {
            const {projects} = await backend.json('GET', '/api/projects');
            return [
                element('div', {class: 'title'}, element('h1', {}, t('myProjects')),
                    element('a', {class: 'button primary', href: '/editor'}, t('newProject'))),
                await draftList(),
                list(projects, ['versions', 'share', 'copy', 'rename', 'remove'], t('noProjects'))
            ];
        }
    },
    '/shared': {
        content: async () => {
            const {projects} = await backend.json('GET', '/api/projects/shared');
            return [element('h1', {}, t('sharedWithMe')), list(projects, ['copy'], t('noShared'))];
        }
    },
    '/pupils': {
        content: async () => {
            const {students} = await backend.json('GET', '/api/teacher/students');
            return [element('h1', {}, t('pupils')), pupilsByGroup(students)];
        }
    },
    '/pupils/': {
        content: async id => {
            const {student, projects} = await backend.json('GET', `/api/teacher/students/${encodeURIComponent(id)}/projects`);
            return [
                element('p', {}, element('a', {href: '/pupils'}, t('pupils'))),
                element('h1', {}, student.username),
                list(projects, ['versions'], t('noProjects'))
            ];
        }
    },
    '/versions/': {
        content: async id => {
            const [meta, {revisions}] = await Promise.all([
                backend.json('GET', `/api/projects/${id}/metadata`),
                backend.json('GET', `/api/projects/${id}/revisions`)
            ]);
            const row = each => {
                const date = shown(moment(each.created_at), locale);
                return element('li', {class: 'version'},
                    element('span', {}, date, each.is_current ? ` (${t('current')})` : null),
                    element('span', {class: 'quiet'}, each.saved_by.username ?? ''),
                    element('a', {class: 'button', href: `/editor/${id}/versions/${each.version}`, 'aria-label': `${t('look')}: ${date}`}, t('look')),
                    each.is_current ? null : button(t('restore'), async () => {
                        const sure = await ask({
                            title: t('restoreQuestion', {date}), body: element('p', {}, t('restoreText')),
                            choices: [[true, t('restore')], [false, t('cancel')]], escape: false
                        });
                        if (!sure) return;
                        await backend.json('POST', `/api/projects/${id}/revisions/${each.version}/restore`, {query: {version: meta.version}});
                        await render();
                    }, {'aria-label': `${t('restore')}: ${date}`}));
            };
            return [
                element('h1', {}, `${t('versions')}: ${meta.title}`),
                element('p', {}, element('a', {href: `/editor/${id}`}, t('open'))),
                element('ol', {class: 'versions'}, revisions.map(row))
            ];
        }
    }
};

/** Pupils under the names of their groups; one in two groups is listed twice. */
export function pupilsByGroup (students) {
    const groups = new Map();
    for (const student of students) {
        for (const name of student.groups.length > 0 ? student.groups : ['']) {
            if (!groups.has(name)) groups.set(name, []);
            groups.get(name).push(student);
        }
    }
    if (groups.size === 0) return element('p', {class: 'empty'}, t('noPupils'));
    const names = [...groups.keys()].sort((a, b) => a.localeCompare(b, locale));
    return element('div', {}, names.map(name => element('section', {},
        element('h2', {}, name || '–'),
        element('ul', {class: 'people'}, groups.get(name).map(student => element('li', {},
            element('a', {href: `/pupils/${encodeURIComponent(student.id)}`}, student.username), ' ',
            element('span', {class: 'quiet'}, student.project_count === 1 ?
                t('projectOne') : t('projects', {count: student.project_count}))))))));
}

function pageOf (path) {
    if (path in PAGES && !path.endsWith('/')) return [PAGES[path], null];
    if (path === '/') return [PAGES['/'], null];
    const [, first, rest] = path.match(/^(\/[a-z]+\/)(.+)$/) ?? [];
    return first in PAGES ? [PAGES[first], decodeURIComponent(rest)] : [null, null];
}

async function render () {
    document.documentElement.lang = locale;
    const main = element('main', {});
    let top = null;
    try {
        const branding = await fetch('/branding/branding.json').then(answer => (answer.ok ? answer.json() : {}), () => ({}));
        const [page, id] = pageOf(location.pathname);
        await person.find();
        top = header({t, locale, person, branding, here: location.pathname, beforeLogOut: () => confirmLogOut({t, drafts, person})});
        if (page === null) main.append(element('h1', {}, t('notFound')), element('a', {href: '/'}, t('myProjects')));
        else if (person.user === null && !page.open) return location.replace(person.loginAddress(location.pathname));
        else main.append(...(await page.content(id)).filter(Boolean));
        main.append(element('footer', {}, element('a', {href: '/source.html'}, t('source'))));
    } catch (error) {
        if (!(error instanceof BackendError)) throw error;
        if (error.status === 401) return location.replace(person.loginAddress(location.pathname));
        main.append(element('p', {class: 'notice', role: 'alert'}, explain(t, error)), button(t('tryAgain'), render));
    }
    const title = main.querySelector('h1')?.textContent;
    document.title = title ? `${title} – ${t('titleSuffix')}` : t('titleSuffix');
    document.body.replaceChildren(...[top, main].filter(Boolean));
    document.documentElement.dataset.page = 'ready';
}

person.onLogOut(() => location.assign('/'));
render();
