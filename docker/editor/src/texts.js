// All texts of our pages, in German and English. test/texts.test.js compares the two.

const TEXTS = {
    de: {
        language: 'Deutsch',
        titleSuffix: 'Scratch4School',
        logIn: 'Anmelden',
        logOut: 'Abmelden',
        welcome: 'Scratch-Projekte auf dem Server der Schule',
        welcomeText: 'Melde dich mit deinem Schulkonto an.',
        loginFailed: 'Die Anmeldung hat nicht geklappt.',
        loggedIn: 'Du bist angemeldet. Dieses Fenster kann zu.',
        close: 'Fenster schließen',
        myProjects: 'Meine Projekte',
        sharedWithMe: 'Mit mir geteilt',
        pupils: 'Schülerinnen und Schüler',
        newProject: 'Neues Projekt',
        noProjects: 'Du hast noch keine Projekte.',
        noShared: 'Noch ist kein Projekt mit dir geteilt.',
        noPupils: 'Noch hat sich niemand angemeldet.',
        open: 'Öffnen',
        copy: 'Kopieren',
        rename: 'Umbenennen',
        remove: 'Löschen',
        share: 'Teilen',
        versions: 'Frühere Fassungen',
        look: 'Ansehen',
        restore: 'Wiederherstellen',
        current: 'jetzt',
        cancel: 'Abbrechen',
        ok: 'OK',
        newTitle: 'Neuer Titel',
        removeQuestion: 'Projekt „{title}“ löschen?',
        removeText: 'Das Projekt und seine früheren Fassungen sind dann weg.',
        shareQuestion: '„{title}“ teilen mit:',
        noGroups: 'Du bist in keiner Gruppe.',
        restoreQuestion: 'Fassung vom {date} wiederherstellen?',
        restoreText: 'Die jetzige Fassung bleibt in der Liste.',
        saved: 'Gespeichert um {time}',
        unsaved: 'Nicht gespeichert',
        saving: 'Wird gespeichert …',
        saveNow: 'Jetzt speichern',
        readOnly: 'Nur ansehen. Mit „Remix“ bekommst du eine eigene Kopie.',
        of: 'von {name}',
        projects: '{count} Projekte',
        projectOne: '1 Projekt',
        drafts: 'Nicht gespeicherte Arbeit auf diesem Computer',
        draftQuestion: 'Auf diesem Computer gibt es Arbeit, die nicht gespeichert ist.',
        draftText: '„{title}“, zuletzt geändert {date}.',
        draftContinue: 'Weiterarbeiten',
        draftDiscard: 'Verwerfen',
        conflictTitle: 'Dieses Projekt wurde inzwischen woanders gespeichert.',
        conflictMine: 'Deine Fassung hier: {date}',
        conflictTheirs: 'Die gespeicherte Fassung: {date}',
        conflictCopy: 'Meine als Kopie speichern',
        conflictOverwrite: 'Meine behalten',
        conflictLoad: 'Die andere laden',
        expiredTitle: 'Deine Anmeldung ist abgelaufen.',
        expiredText: 'Dein Projekt ist noch da. Melde dich wieder an, dann geht es weiter.',
        expiredAgain: 'Wieder anmelden',
        logOutTitle: 'Es gibt nicht gespeicherte Arbeit.',
        logOutText: 'Wenn du dich jetzt abmeldest, wird sie auf diesem Computer gelöscht.',
        logOutAnyway: 'Trotzdem abmelden',
        error0: 'Keine Verbindung zum Server der Schule. Deine Arbeit bleibt auf diesem Computer, das Speichern wird weiter versucht.',
        error401: 'Du bist nicht angemeldet.',
        error403: 'Dieses Projekt ist nicht für dich freigegeben.',
        error404: 'Dieses Projekt gibt es nicht mehr.',
        error413: 'Das Projekt ist zu groß: höchstens 16 MB können gespeichert werden. Lösche große Klänge oder Bilder, die du nicht brauchst.',
        error503: 'Der Server ist gerade beschäftigt. Das Speichern wird gleich wieder versucht.',
        error507: 'Auf dem Server ist kein Platz mehr. Sag es einer Lehrkraft. Das Speichern wird weiter versucht.',
        errorOther: 'Das hat nicht geklappt: {message}',
        source: 'Quelltext (AGPL-3.0)',
        notFound: 'Diese Seite gibt es nicht.',
        tryAgain: 'Noch einmal versuchen'
    },
    en: {
        language: 'English',
        titleSuffix: 'Scratch4School',
        logIn: 'Log in',
        logOut: 'Log out',
        welcome: 'Scratch projects on the school’s own server',
        welcomeText: 'Log in with your school account.',
        loginFailed: 'The login did not work.',
        loggedIn: 'You are logged in. You can close this window.',
        close: 'Close window',
        myProjects: 'My projects',
        sharedWithMe: 'Shared with me',
        pupils: 'Pupils',
        newProject: 'New project',
        noProjects: 'You have no projects yet.',
        noShared: 'No project is shared with you yet.',
        noPupils: 'No pupil has logged in yet.',
        open: 'Open',
        copy: 'Copy',
        rename: 'Rename',
        remove: 'Delete',
        share: 'Share',
        versions: 'Earlier versions',
        look: 'Look',
        restore: 'Restore',
        current: 'now',
        cancel: 'Cancel',
        ok: 'OK',
        newTitle: 'New title',
        removeQuestion: 'Delete the project “{title}”?',
        removeText: 'The project and its earlier versions will be gone.',
        shareQuestion: 'Share “{title}” with:',
        noGroups: 'You are in no group.',
        restoreQuestion: 'Restore the version of {date}?',
        restoreText: 'The version of now stays in the list.',
        saved: 'Saved at {time}',
        unsaved: 'Not saved',
        saving: 'Saving …',
        saveNow: 'Save now',
        readOnly: 'You can only look. “Remix” gives you a copy of your own.',
        of: 'by {name}',
        projects: '{count} projects',
        projectOne: '1 project',
        drafts: 'Unsaved work on this computer',
        draftQuestion: 'There is work on this computer that is not saved.',
        draftText: '“{title}”, last changed {date}.',
        draftContinue: 'Continue',
        draftDiscard: 'Discard',
        conflictTitle: 'This project was saved somewhere else in the meantime.',
        conflictMine: 'Your version here: {date}',
        conflictTheirs: 'The saved version: {date}',
        conflictCopy: 'Save mine as a copy',
        conflictOverwrite: 'Keep mine',
        conflictLoad: 'Load the other one',
        expiredTitle: 'Your login has expired.',
        expiredText: 'Your project is still here. Log in again to go on.',
        expiredAgain: 'Log in again',
        logOutTitle: 'There is unsaved work.',
        logOutText: 'If you log out now, it is deleted from this computer.',
        logOutAnyway: 'Log out anyway',
        error0: 'No connection to the school’s server. Your work stays on this computer, and saving is tried again.',
        error401: 'You are not logged in.',
        error403: 'This project is not shared with you.',
        error404: 'This project does not exist any more.',
        error413: 'The project is too large: at most 16 MB can be saved. Delete large sounds or pictures that you do not need.',
        error503: 'The server is busy. Saving is tried again in a moment.',
        error507: 'The server has no room left. Tell a teacher. Saving is tried again.',
        errorOther: 'That did not work: {message}',
        source: 'Source code (AGPL-3.0)',
        notFound: 'There is no such page.',
        tryAgain: 'Try again'
    }
};

export const LOCALES = Object.keys(TEXTS);
const KEPT = 'scratch4school-locale';

/** The language that the person chose on this computer, else the browser's first one that we have, else English. */
export function chosenLocale (storage = localStorage, languages = navigator.languages) {
    const kept = storage.getItem(KEPT);
    if (LOCALES.includes(kept)) return kept;
    return languages.map(each => each.slice(0, 2)).find(each => LOCALES.includes(each)) ?? 'en';
}

export function chooseLocale (locale, storage = localStorage) {
    storage.setItem(KEPT, locale);
}

/** A function from a text's name, and the values of its {places}, to the text. Throws for an unknown name. */
export function texts (locale) {
    const own = TEXTS[locale];
    return (name, values = {}) => {
        if (!(name in own)) throw new Error(`no text ${name}`);
        return own[name].replace(/\{(\w+)\}/g, (_place, key) => values[key]);
    };
}

/** The message for a BackendError, in the person's language. */
export function explain (t, error) {
    if ([0, 401, 403, 404, 413, 507].includes(error.status)) return t(`error${error.status}`);
    if (error.status === 429 || error.status >= 500) return t('error503');
    return t('errorOther', {message: error.message});
}

export const ALL = TEXTS;
