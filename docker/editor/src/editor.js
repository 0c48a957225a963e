// The editor's page: scratch-gui's finished file, our storage below it, and a header of our own above it.
import {Backend, BackendError} from './backend.js';
import {Drafts} from './drafts.js';
import {confirmLogOut, header} from './header.js';
import {OpenProject} from './open-project.js';
import {ask, element, moment, shown} from './page.js';
import {Person} from './person.js';
import {Saver} from './saver.js';
import {SchoolStorage} from './storage.js';
import {chosenLocale, explain, texts} from './texts.js';

const GUI = window.GUI;
const locale = chosenLocale();
const t = texts(locale);
document.documentElement.lang = locale;

const backend = new Backend({fetch: (...args) => fetch(...args)});
const drafts = new Drafts(indexedDB);
const person = new Person({backend});
const address = location.pathname.match(/^\/editor(?:\/(\d{1,9})(?:\/versions\/(\d{1,9}))?)?$/);

/** A blob of the editor's stage as PNG, or null: a picture must not prevent a save. */
async function thumbnail (thumbnailer) {
    if (!thumbnailer) return null;
    try {
        const uri = await new Promise((resolve, reject) => {
            setTimeout(() => reject(new Error('no picture')), 3000); // a hidden tab draws none
            thumbnailer(resolve);
        });
        return await (await fetch(uri)).blob();
    } catch {
        return null;
    }
}

/** Ask what to do with the draft of this project, if there is one. Resolves to the draft to go on with, or null. */
async function offeredDraft (key) {
    const draft = await drafts.get(person.user.id, key).catch(() => undefined);
    if (!draft) return null;
    const picture = draft.thumbnail ? element('img', {src: URL.createObjectURL(draft.thumbnail), alt: ''}) : null;
    const goOn = await ask({
        title: t('draftQuestion'),
        body: [picture, element('p', {}, t('draftText', {title: draft.title, date: shown(new Date(draft.changedAt), locale)}))],
        choices: [[true, t('draftContinue')], [false, t('draftDiscard')]]
    });
    if (goOn) return draft;
    await drafts.remove(person.user.id, key);
    return null;
}

async function start () {
    const branding = await fetch('/branding/branding.json').then(answer => (answer.ok ? answer.json() : {}), () => ({}));
    if (await person.find() === null) {
        location.replace(person.loginAddress(location.pathname));
        return;
    }
    const projectId = address?.[1] ?? null;
    const savedVersion = address?.[2] ?? null;
    const draftName = projectId ?? (new URLSearchParams(location.search).get('draft') ?? '');
    const meta = projectId === null ? null : await backend.json('GET', `/api/projects/${projectId}/metadata`);
    const mine = meta === null || (meta.can_save && savedVersion === null);
    const draft = mine && draftName ? await offeredDraft(draftName) : null;

    let vm = null;
    let thumbnailer = null;
    let save = null;
    let loaded = false;
    const status = element('span', {class: 'save-status', role: 'status'});
    const saveNow = element('button', {type: 'button', class: 'quiet', hidden: true, onclick: () => page.retry()}, t('saveNow'));
    const notice = element('p', {class: 'notice', role: 'alert', hidden: true});
    const show = (text, problem = false) => {
        status.textContent = text;
        status.classList.toggle('problem', problem);
        saveNow.hidden = !problem;
    };

    const page = {
        conflict: async ({mine: own, theirs}) => ask({
            title: t('conflictTitle'),
            body: [element('div', {class: 'versions-beside'},
                element('figure', {},
                    own.thumbnail ? element('img', {src: URL.createObjectURL(own.thumbnail), alt: ''}) : null,
                    element('figcaption', {}, t('conflictMine', {date: shown(new Date(), locale)}))),
                element('figure', {},
                    element('img', {src: `/backend/api/projects/${theirs.id}/thumbnail?version=${theirs.version}`, alt: ''}),
                    element('figcaption', {}, t('conflictTheirs', {date: shown(moment(theirs.updated_at), locale)}))))],
            choices: [['copy', t('conflictCopy')], ['mine', t('conflictOverwrite')], ['theirs', t('conflictLoad')]]
        }),
        logIn: async () => {
            show(t('unsaved'), true);
            const again = person.loggedInAgain();
            const asked = ask({
                title: t('expiredTitle'),
                body: [element('p', {}, t('expiredText')), element('button', {
                    type: 'button', class: 'primary', onclick: () => person.openLogin()
                }, t('expiredAgain'))],
                choices: []
            });
            await Promise.race([again, asked]);
            document.querySelector('dialog[open]')?.remove();
            return true;
        },
        saving: () => show(t('saving')),
        saved: result => {
            // A pupil who drops a block while its first save is under way has changed the project since.
            if (project.isUnsaved) show(t('unsaved'));
            else show(t('saved', {time: new Intl.DateTimeFormat(locale, {timeStyle: 'short'}).format(new Date())}));
            notice.hidden = true;
            if (result.outcome === 'theirs') setTimeout(() => location.reload(), 0);
            else if (result.outcome === 'copied') setTimeout(() => location.assign(`/editor/${result.id}`), 0);
            else if (location.pathname !== `/editor/${result.id}`) {
                history.replaceState(null, '', `/editor/${result.id}`);
                props.canCreateCopy = true;
                root.render({...props});
            }
        },
        failed: error => {
            show(t('unsaved'), true);
            notice.textContent = explain(t, error);
            notice.hidden = false;
        },
        changedSince: () => setTimeout(() => vm.runtime.emitProjectChanged(), 300),
        retry: () => {
            if (project.projectId !== null) {
                save?.();
                return;
            }
            // scratch-gui creates a project when it becomes able to, and not again after it failed.
            root.render({...props, canCreateNew: false});
            setTimeout(() => root.render({...props}), 0);
        }
    };

    const saver = new Saver({backend, drafts, userId: person.user.id, page});
    if (projectId !== null && mine) saver.opened(projectId, draft?.version ?? meta.version);
    if (draft?.key.startsWith('new-')) saver.continueNew(draft.key);
    const project = new OpenProject({
        saver,
        projectId: mine ? projectId : null,
        page,
        capture: async () => ({
            file: await vm.saveProjectSb3(),
            title: state.store.getState().scratchGui.projectTitle,
            thumbnail: await thumbnail(thumbnailer)
        })
    });

    const storage = new SchoolStorage(GUI, {
        backend,
        project: {
            load: async id => {
                if (draft) return draft.file.arrayBuffer();
                const path = savedVersion === null ? 'download' : `revisions/${savedVersion}/download`;
                return (await backend.request('GET', `/api/projects/${id}/${path}`)).arrayBuffer();
            },
            // File > New, after the project of this page was saved: the new one gets a page of its own, with a draft
            // and a version of its own. At the page's own opening the builtin project is shown.
            isNew: () => {
                if (!loaded) return null;
                location.assign('/editor');
                return new Promise(() => {});
            },
            save: async (_id, params = {}) => {
                const separate = Boolean(params.isCopy || params.isRemix);
                return {id: (await project.save(params.title, {separate})).id};
            }
        }
    });

    const state = new GUI.EditorState({locale}, () => ({storage}));
    const place = document.getElementById('editor');
    GUI.setAppElement(place);
    const root = GUI.createStandaloneRoot(state, place);
    let listening = false;
    const props = {
        projectId: projectId ?? (draft ? 'draft' : '0'),
        projectTitle: draft?.title ?? meta?.title,
        username: person.user.username,
        userOwnsProject: mine,
        authorUsername: meta?.owner.username ?? person.user.username,
        authorId: meta?.owner.id ?? person.user.id,
        canSave: mine,
        canRemix: !mine,
        canCreateCopy: mine && projectId !== null,
        canCreateNew: false, // true would create a project at each opening
        canEditTitle: mine,
        canShare: false,
        canManageFiles: true,
        canUseCloud: false,
        hasCloudPermission: false,
        backpackVisible: true,
        backpackHost: '/backend/api/backpack',
        basePath: '/',
        autoSaveIntervalSecs: branding.autosave_seconds ?? 30,
        accountMenuOptions: {canHaveSession: false, canRegister: false, canLogin: false, canLogout: false},
        onClickLogo: () => location.assign('/projects'),
        onVmInit: made => { vm = made; },
        onSetProjectThumbnailer: given => { thumbnailer = given; },
        onSetProjectSaver: given => { save = given; },
        onUpdateProjectId: () => {},
        onProjectLoaded: () => {
            loaded = true;
            performance.mark('project-loaded');
            document.documentElement.dataset.project = 'loaded';
            if (listening || !mine) return;
            listening = true;
            vm.on('PROJECT_CHANGED', () => {
                project.changed();
                if (saveNow.hidden) show(t('unsaved'));
                if (project.projectId === null && !props.canCreateNew) {
                    props.canCreateNew = true;
                    root.render({...props});
                }
            });
            if (draft) vm.runtime.emitProjectChanged();
        }
    };
    document.getElementById('header').replaceWith(element('div', {id: 'header'},
        header({
            t, locale, person, branding, here: '/editor',
            middle: [mine ? [status, saveNow] : element('span', {}, t('readOnly'))],
            beforeLogOut: async () => {
                await project.keep();
                return confirmLogOut({t, drafts, person});
            }
        }),
        notice));
    root.render(props);

    person.onLogOut(() => location.assign('/'));
    addEventListener('online', () => project.retryNow());
    addEventListener('pagehide', () => { project.keep(); });
    document.addEventListener('visibilitychange', () => {
        if (document.visibilityState === 'hidden') project.keep();
        else project.retryNow();
    });
}

start().catch(error => {
    const message = error instanceof BackendError ? explain(t, error) : String(error);
    document.getElementById('header').replaceWith(element('main', {class: 'message'},
        element('p', {role: 'alert'}, message),
        element('button', {type: 'button', class: 'primary', onclick: () => location.reload()}, t('tryAgain'))));
    if (!(error instanceof BackendError)) throw error;
});
